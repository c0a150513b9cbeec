"""`ovfast convert` on small models that are made here, against their frameworks and NumPy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from cli_harness import Ovfast
from convert_models import (
    CLASSES,
    Array,
    run_ir,
    run_onnx,
    write_frozen_graph,
    write_onnx_add,
    write_onnx_convnet,
    write_onnx_custom,
)

import ovfast
from ovfast.convert import Input
from ovfast.errors import Error, ModelError

# Both sides compute in f32, in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
# Weights are rounded to 11 bits.
CLOSE_F16 = {"rtol": 1e-2, "atol": 1e-2}


@pytest.fixture(scope="module")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx_convnet(tmp_path_factory.mktemp("onnx") / "convnet.onnx")


def images(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def left_behind(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*"))


def convert(source: Any, out: Path, **options: Any) -> Any:
    return ovfast.convert(source, out, progress=False, **options)


@pytest.mark.parametrize("fp16", [True, False])
def test_outputs_are_those_of_the_original(convnet: Path, tmp_path: Path, fp16: bool) -> None:
    result = convert(convnet, tmp_path / "m.xml", fp16=fp16)
    assert left_behind(tmp_path) == ["m.bin", "m.xml"]
    image = images(2, 3, 9, 11)
    close = CLOSE_F16 if fp16 else CLOSE
    np.testing.assert_allclose(
        run_ir(result.xml, image)[0], run_onnx(convnet, image=image)[0], **close
    )
    weights = 4 * 3 * 3 * 3 + 4 + 4 * CLASSES
    assert (tmp_path / "m.bin").stat().st_size < weights * (3 if fp16 else 5)
    assert (tmp_path / "m.bin").stat().st_size >= weights * (2 if fp16 else 4)


def test_result_tells_what_was_read_and_written(convnet: Path, tmp_path: Path) -> None:
    result = convert(
        convnet, tmp_path / "m.xml", inputs={"": Input(layout="NCHW", data_layout="NHWC")}
    )
    assert (result.framework, result.source) == ("onnx", str(convnet))
    assert result.source_bytes == convnet.stat().st_size
    assert result.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    (read,), (written,), (output,) = result.read.inputs, result.written.inputs, result.read.outputs
    assert (read.name, read.type, read.shape) == ("image", "f32", "[?,3,?,?]")
    assert (written.shape, written.layout) == ("[?,?,?,3]", "[N,H,W,C]")
    assert (output.name, output.shape) == ("logits", f"[?,{CLASSES}]")
    assert 0 < result.written.operations <= result.read.operations + 2
    assert result.verified is None


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ("[1,3,32,16]", "[1,3,32,16]"),
        ("1,3,?,8..64", "[1,3,?,8..64]"),
        ([1, 3, None, (8, 64)], "[1,3,?,8..64]"),
        ([2, 3, (4, None), 16], "[2,3,4..,16]"),
    ],
)
def test_shapes(convnet: Path, tmp_path: Path, given: Any, shape: str) -> None:
    result = convert(convnet, tmp_path / "m.xml", inputs={"image": Input(shape=given)})
    assert result.written.inputs[0].shape == shape


def test_steps_on_the_data_are_folded_in(convnet: Path, tmp_path: Path) -> None:
    mean, scale = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    options = Input(
        layout="NCHW",
        data_layout="NHWC",
        data_type="u8",
        mean=mean,
        scale=scale,
        reverse_channels=True,
    )
    xml = convert(convnet, tmp_path / "m.xml", inputs={"image": options}, fp16=False).xml
    data = np.random.default_rng(2).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
    rgb = data[..., ::-1].astype(np.float32)
    image = ((rgb - np.float32(mean)) / np.float32(scale)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(run_ir(xml, data)[0], run_onnx(convnet, image=image)[0], **CLOSE)


@pytest.mark.parametrize("step", [{"mean": 3.0}, {"scale": 0.25}, {"mean": [0.5], "scale": 2}])
def test_one_mean_and_scale_need_no_layout(
    convnet: Path, tmp_path: Path, step: dict[str, Any]
) -> None:
    xml = convert(convnet, tmp_path / "m.xml", inputs={"": Input(**step)}, fp16=False).xml
    data = images(1, 3, 4, 4)
    image = (data - np.float32(np.ravel(step.get("mean", 0)))) / np.float32(step.get("scale", 1))
    np.testing.assert_allclose(run_ir(xml, data)[0], run_onnx(convnet, image=image)[0], **CLOSE)


def test_data_is_resized(convnet: Path, tmp_path: Path) -> None:
    options = Input(shape="1,3,8,12", layout="NCHW", resize="nearest")
    result = convert(convnet, tmp_path / "m.xml", inputs={"": options}, fp16=False)
    assert result.written.inputs[0].shape == "[1,3,?,?]"
    small = images(1, 3, 4, 6)
    image = small.repeat(2, 2).repeat(2, 3)
    expected = run_onnx(convnet, image=image)[0]
    np.testing.assert_allclose(run_ir(result.xml, small)[0], expected, **CLOSE)
    np.testing.assert_allclose(run_ir(result.xml, image)[0], expected, **CLOSE)


def test_two_parts_of_a_cut_model_are_the_whole(convnet: Path, tmp_path: Path) -> None:
    body = convert(convnet, tmp_path / "body", outputs=["features"], fp16=False)
    head = convert(convnet, tmp_path / "head", inputs={"features": Input(cut=True)}, fp16=False)
    assert [port.name for port in body.written.inputs] == ["image"]
    assert [port.name for port in body.written.outputs] == ["features"]
    assert [port.name for port in head.written.inputs] == ["features"]
    assert [port.name for port in head.written.outputs] == ["logits"]
    image = images(1, 3, 7, 7)
    features = run_ir(body.xml, image)[0]
    assert features.shape == (1, 4, 7, 7)
    expected = run_onnx(convnet, image=image)[0]
    np.testing.assert_allclose(run_ir(head.xml, features)[0], expected, **CLOSE)


def test_a_cut_takes_shape_and_steps(convnet: Path, tmp_path: Path) -> None:
    options = Input(cut=True, shape="2,4,3,3", layout="NCHW", data_layout="NHWC")
    result = convert(convnet, tmp_path / "m.xml", inputs={"features": options}, outputs=["pooled"])
    features = images(2, 3, 3, 4)
    np.testing.assert_allclose(run_ir(result.xml, features)[0], features.mean((1, 2)), **CLOSE)


def test_a_cut_keeps_inputs_that_are_needed(tmp_path: Path) -> None:
    source = write_onnx_add(tmp_path / "add.onnx")
    result = convert(source, tmp_path / "m.xml", outputs=["zero"])
    assert [port.name for port in result.written.inputs] == ["a"]
    result = convert(source, tmp_path / "m2.xml", outputs=["zero", "sum"])
    assert [port.name for port in result.written.inputs] == ["a", "b"]
    assert [port.name for port in result.written.outputs] == ["zero", "sum"]


def test_operators_that_cannot_be_converted_are_named_and_cut_away(tmp_path: Path) -> None:
    source = write_onnx_custom(tmp_path / "custom.onnx")
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"com\.my\.First, com\.my\.Second"):
        convert(source, out)
    with pytest.raises(ModelError, match="left after the cut: .*Second"):
        convert(source, out, inputs={"first": Input(cut=True, shape="?,3", type="f32")})
    assert left_behind(tmp_path) == ["custom.onnx"]
    with pytest.raises(ValueError, match=r"type of 'second' is not known"):
        convert(source, out, inputs={"second": Input(cut=True)})
    options = Input(cut=True, shape="?,3", type="f32")
    xml = convert(source, out, inputs={"second": options}).xml
    np.testing.assert_array_equal(run_ir(xml, images(2, 3))[0], images(2, 3) * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["featurez"]}, "no tensor or operation 'featurez'.*similar names: features"),
        ({"inputs": {"nowhere": Input(cut=True)}}, "no tensor or operation 'nowhere'"),
        ({"inputs": {"image": Input(cut=True)}}, "'image' is an input of the model already"),
        ({"inputs": {"": Input(cut=True)}}, "a cut needs the name"),
        ({"inputs": {"features": Input(cut=True)}, "outputs": ["conv"]}, "depends on 'features'"),
        ({"inputs": {"features": Input(cut=True, shape="1,5,2,2")}}, "does not fit"),
        ({"inputs": {"features": Input(shape="1,4,2,2")}}, "no input 'features'.*--cut-input"),
        ({"inputs": {"image": Input(), "": Input()}}, "two sets of options"),
        ({"inputs": {"": Input(layout="NCW")}}, "NCW has 3 dimensions, the input 'image' has 4"),
        ({"inputs": {"": Input(layout="NCHW", mean=[1, 2])}}, "2 values.*has 3 channels"),
        ({"inputs": {"": Input(layout="NCHW", resize="linear")}}, "fixed height and width"),
        ({"outputs": ["features"], "verify": True}, "cannot be had together with cuts"),
    ],
)
def test_options_that_do_not_fit_the_model(
    convnet: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert(convnet, tmp_path / "m", **options)
    assert left_behind(tmp_path) == []


def test_options_need_names_where_there_are_several_inputs(tmp_path: Path) -> None:
    source = write_onnx_add(tmp_path / "add.onnx", "INT32")
    with pytest.raises(ValueError, match="2 inputs, so each option must name one: a, b"):
        convert(source, tmp_path / "m", inputs={"": Input(mean=1)})
    with pytest.raises(ValueError, match="floating point, 'b' is i32"):
        convert(source, tmp_path / "m", inputs={"b": Input(mean=1)})


def test_shapes_that_the_model_cannot_take(convnet: Path, tmp_path: Path) -> None:
    for shape, message in {"1,3,4": "another number of dimensions", "1,5,4,4": "shape"}.items():
        with pytest.raises(ModelError, match=message):
            convert(convnet, tmp_path / "m", inputs={"": Input(shape=shape)})
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "1,x"}, "'x' in the shape '1,x' is no dimension"),
        ({"shape": "9..3"}, "no dimension"),
        ({"shape": [1, -5]}, "'-5'"),
        ({"shape": "1,..."}, "must stand alone"),
        ({"layout": "nchw"}, "'nchw' is not a layout"),
        ({"layout": "NCHC"}, "'NCHC' is not a layout"),
        ({"data_layout": "NHWC"}, "needs the model's layout"),
        ({"layout": "NCHW", "data_layout": "NHW"}, "the letters of the layout NCHW"),
        ({"layout": "N?HW", "data_layout": "NHW?"}, "all of them named"),
        ({"data_type": "u9"}, "unknown data type 'u9'"),
        ({"type": "f32"}, "where a model is cut"),
        ({"type": "f31", "cut": True}, "unknown element type 'f31'"),
        ({"mean": []}, "the mean must be"),
        ({"mean": float("nan")}, "the mean must be one finite number"),
        ({"scale": [1, 0, 1], "layout": "NCHW"}, "must not be 0"),
        ({"scale": [1, 2, 3]}, "needs a layout with C"),
        ({"reverse_channels": True}, "needs a layout with C"),
        ({"resize": "linear", "layout": "NC"}, "needs a layout with H and W"),
        ({"resize": "area", "layout": "NCHW"}, "unknown resize 'area'"),
    ],
)
def test_options_that_contradict_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Input(**options)


def test_bad_sources(convnet: Path, tmp_path: Path) -> None:
    sources = {
        "gone.onnx": (None, "does not exist"),
        "empty.onnx": (b"", "is empty"),
        "text.onnx": (b"hello world, this is no model" * 9, "cannot be read as ONNX"),
        "half.onnx": (convnet.read_bytes()[:200], "cannot be read as ONNX"),
        "text.tflite": (b"hello world, this is no model", "no mark TFL3"),
        "half.tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "cannot be read as TensorFlow Lite"),
        "text.pb": (b"hello world, this is no model", "cannot be read as TensorFlow"),
        "lone.pdmodel": (b"\x0a\x02\x08\x01" * 9, r"'lone\.pdiparams' is not beside"),
        "lone.xml": (b"<net></net>", r"'lone\.bin' is not beside"),
        "text.pt": (b"hello world, this is no model", "not a PyTorch archive"),
        "model.h5": (b"\x89HDF\r\n\x1a\n", "write it as SavedModel"),
        "model.gguf": (b"GGUF" + bytes(20), "use ovfast export"),
        "model.bin": (b"anything", "suffix that is not known: expected .onnx"),
        "folder": (None, "holds no saved_model.pb; give a file in it: a.onnx"),
    }
    folder = tmp_path / "sources"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder" / "a.onnx").touch()
    for name, (content, message) in sources.items():
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(ModelError, match=message):
            convert(folder / name, tmp_path / "out" / "m.xml")
    assert left_behind(tmp_path / "out") == []
    with pytest.raises(TypeError, match="type int"):
        convert(3, tmp_path / "m.xml")


def test_external_weights_that_are_missing_are_named(convnet: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(convnet)
    external = {"save_as_external_data": True, "location": "big.data", "size_threshold": 0}
    onnx.save(model, tmp_path / "m.onnx", **external)
    xml = convert(tmp_path / "m.onnx", tmp_path / "whole", fp16=False).xml
    image = images(1, 3, 4, 4)
    np.testing.assert_allclose(run_ir(xml, image)[0], run_onnx(convnet, image=image)[0], **CLOSE)
    (tmp_path / "big.data").unlink()
    with pytest.raises(ModelError, match=r"the file 'big\.data', which is not beside it"):
        convert(tmp_path / "m.onnx", tmp_path / "m")


def test_frozen_graph_of_tensorflow(tmp_path: Path) -> None:
    weight = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
    source = write_frozen_graph(tmp_path / "frozen.pb", weight)
    result = convert(source, tmp_path / "m", inputs={"x:0": Input(shape=[2, 4])}, fp16=False)
    assert result.framework == "tf"
    x = images(2, 4) - np.float32(0.5)
    np.testing.assert_allclose(run_ir(result.xml, x)[0], np.maximum(x @ weight, 0), **CLOSE)
    strange = tmp_path / "strange.pb"
    strange.write_bytes(source.read_bytes().replace(b"Relu", b"Rely"))
    with pytest.raises(ModelError, match="cannot convert: Rely"):
        convert(strange, tmp_path / "s")
    with pytest.raises(ModelError, match="left after the cut: y"):
        convert(strange, tmp_path / "s", inputs={"product": Input(cut=True)})
    cut = convert(strange, tmp_path / "cut", outputs=["product"], fp16=False)
    np.testing.assert_allclose(run_ir(cut.xml, x)[0], x @ weight, **CLOSE)


def test_openvino_ir_takes_steps_too(convnet: Path, tmp_path: Path) -> None:
    first = convert(convnet, tmp_path / "first.xml", fp16=False).xml
    again = convert(first, tmp_path / "again", inputs={"image": Input(scale=4.0)}, fp16=False)
    assert again.framework == "ir"
    image = images(1, 3, 4, 4)
    np.testing.assert_allclose(run_ir(again.xml, image)[0], run_ir(first, image / 4)[0], **CLOSE)
    cut = convert(first, tmp_path / "cut", inputs={"features": Input(cut=True)}, outputs=["pooled"])
    features = images(1, 4, 3, 3)
    np.testing.assert_allclose(run_ir(cut.xml, features)[0], features.mean((2, 3)), **CLOSE)
    convert(first, first, inputs={"image": Input(scale=4.0)}, fp16=False, force=True)
    np.testing.assert_array_equal(run_ir(first, image)[0], run_ir(again.xml, image)[0])


def test_packed_model_is_refused(
    tiny_model: Callable[[str, str], tuple[Path, Path]], tmp_path: Path
) -> None:
    packed = tiny_model("qwen2", "F16")[1] / "openvino_model.xml"
    with pytest.raises(ModelError, match="is packed for ovfast"):
        convert(packed, tmp_path / "m")


def test_a_directory_gets_a_manifest(convnet: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    result = convert(convnet, out, inputs={"image": Input(shape="1,3,8,8", mean=np.float32(1))})
    assert result.xml == out / "openvino_model.xml"
    assert left_behind(out) == ["openvino_model.bin", "openvino_model.xml", "ovfast.json"]
    manifest = json.loads((out / "ovfast.json").read_text())
    assert manifest["source"]["file"] == "convnet.onnx"
    assert manifest["source"]["bytes"] == convnet.stat().st_size
    (step,) = manifest["steps"]
    assert step["name"] == "convert"
    assert step["options"]["inputs"] == {"image": {"shape": "1,3,8,8", "mean": [1.0]}}
    assert step["tools"]["openvino"].startswith("2026.")


@pytest.mark.parametrize("out", ["m.xml", "directory"])
def test_what_is_there_is_replaced_by_force_only(convnet: Path, tmp_path: Path, out: str) -> None:
    convert(convnet, tmp_path / out)
    before = {file: file.stat().st_ino for file in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="--force"):
        convert(convnet, tmp_path / out, inputs={"": Input(scale=2.0)})
    assert {file: file.stat().st_ino for file in tmp_path.rglob("*")} == before
    xml = convert(
        convnet, tmp_path / out, inputs={"": Input(scale=2.0)}, force=True, fp16=False
    ).xml
    image = images(1, 3, 4, 4)
    expected = run_onnx(convnet, image=image / 2)[0]
    np.testing.assert_allclose(run_ir(xml, image)[0], expected, **CLOSE)


def test_other_files_are_not_replaced(convnet: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ValueError, match="not a model directory"):
        convert(convnet, tmp_path / "mine", force=True)
    (tmp_path / "m.bin").touch()
    with pytest.raises(ValueError, match=r"m\.bin' is there already"):
        convert(convnet, tmp_path / "m.xml")


@pytest.mark.parametrize("out", ["m.xml", "directory"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_write_that_fails_leaves_what_was_there(
    convnet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    error: type[BaseException],
) -> None:
    import openvino as ov

    xml = convert(convnet, tmp_path / out).xml
    before = xml.read_bytes()
    save = ov.save_model

    def fail(model: Any, path: Path, **options: Any) -> None:
        save(model, path, **options)
        raise error("no space left")

    monkeypatch.setattr(ov, "save_model", fail)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else Error):
        convert(convnet, tmp_path / out, inputs={"": Input(scale=2.0)}, force=True)
    assert xml.read_bytes() == before
    assert not [name for name in left_behind(tmp_path) if "ovfast-" in name]
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else Error):
        convert(convnet, tmp_path / "new" / out)
    assert not (tmp_path / "new").exists()


LIMITED = """
import resource, sys
import ovfast
from ovfast.convert import Input
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
ovfast.convert(sys.argv[1], sys.argv[2], inputs={"": Input(shape="1,3,8,8")}, progress=False)
"""


@pytest.mark.parametrize("limit", [100, 4000])
@pytest.mark.parametrize("out", ["m.xml", "directory"])
def test_a_write_that_is_cut_short_is_noticed(
    convnet: Path, tmp_path: Path, out: str, limit: int
) -> None:
    command = [sys.executable, "-c", LIMITED, str(convnet), str(tmp_path / out), str(limit)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert re.search(r"cannot write '.*', where [0-9.]+ MB are free", process.stderr)
    assert left_behind(tmp_path) == []


def test_command_prints_a_table(convnet: Path, tmp_path: Path, ovfast_command: Ovfast) -> None:
    steps = ["--layout", "NCHW", "--data-layout", "NHWC", "--data-type", "u8", "--mean", "1,2,3"]
    steps += ["--scale", "[2]", "--reverse-channels", "--input", "image[1,3,?,1..64]"]
    result = ovfast_command("convert", str(convnet), "-o", str(tmp_path / "m.xml"), *steps)
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["input", "image", "f32", "[1,3,?,1..64]"] in lines
    assert ["input", "image", "u8", "[1,?,1..64,3]", "[N,H,W,C]"] in lines
    assert ["output", "logits", "f32", f"[1,{CLASSES}]"] in lines
    assert "Read " in result.out
    assert "(ONNX, " in result.out
    data = np.random.default_rng(2).integers(0, 256, (1, 6, 5, 3)).astype(np.uint8)
    image = ((data[..., ::-1] - np.float32([1, 2, 3])) / 2).transpose(0, 3, 1, 2).astype(np.float32)
    expected = run_onnx(convnet, image=image)[0]
    spread = np.abs(expected).max()
    np.testing.assert_allclose(
        run_ir(tmp_path / "m.xml", data)[0] / spread, expected / spread, **CLOSE_F16
    )


def test_command_prints_json_and_cuts(
    convnet: Path, tmp_path: Path, ovfast_command: Ovfast
) -> None:
    cut = ["--cut-input", "features[1,4,2,2]:f32", "--cut-output", "pooled", "--no-fp16", "--json"]
    result = ovfast_command("convert", str(convnet), "-o", str(tmp_path / "m"), *cut)
    assert (result.code, result.err) == (0, "")
    printed = json.loads(result.out)
    assert printed["xml"] == str(tmp_path / "m" / "openvino_model.xml")
    assert printed["written"]["inputs"] == [
        {"name": "features", "type": "f32", "shape": "[1,4,2,2]", "layout": None}
    ]
    assert printed["fp16"] is False


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--scale", "a"], "'a' is no scale", 2),
        (["--mean", "1", "--mean", "2"], "two values of mean", 2),
        (["--mean", "1", "--mean", "image[2]"], "two values of mean", 2),
        (["--mean", "1", "--mean", "a[2]", "--scale", "b[2]"], "several inputs are named", 2),
        (["--reverse-channels"], "needs the model's layout", 2),
        (["--input", "image[1,3]:f32"], "a type belongs to --cut-input", 2),
        (["--layout", "NCXX"], "is not a layout", 2),
        (["--example", "x.npz"], "--example is for --verify", 2),
        (["--verify", "--example", "x.npz"], "'x.npz' is not a .npz file", 1),
        (["--input", "other[1]"], "no input 'other'", 1),
    ],
)
def test_command_refuses(
    convnet: Path,
    tmp_path: Path,
    ovfast_command: Ovfast,
    arguments: list[str],
    message: str,
    code: int,
) -> None:
    result = ovfast_command("convert", str(convnet), "-o", str(tmp_path / "m.xml"), *arguments)
    assert message in result.err
    assert (result.code, result.out) == (code, "")
    assert left_behind(tmp_path) == []
