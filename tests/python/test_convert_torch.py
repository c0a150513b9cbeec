"""`ovfast convert` on PyTorch models, and the comparison with the framework's runtime."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cli_harness import Ovfast
from convert_models import Array, run_ir

import ovfast
from ovfast.convert import Input, runtimes
from ovfast.errors import Error, ModelError

# TorchScript is on its way out of PyTorch, but still what many models come in.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")

CLOSE = {"rtol": 1e-4, "atol": 1e-5}

MODULE_SOURCE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, image):
        return self.drop(self.conv(image).relu()), image.mean()

def build():
    return Net(), torch.rand(1, 3, 8, 8)

def alone():
    return torch.nn.ReLU()

def three():
    return 1, 2, 3

constant = 3
"""


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.drop(self.conv(image).relu())


class TwoInputs(torch.nn.Module):
    def forward(self, ids: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": weight[ids].sum(-1), "double": weight * 2}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(5)
    return Net()


def convert(source: Any, out: Path, **options: Any) -> Any:
    return ovfast.convert(source, out, progress=False, **options)


def expected(module: Any, *data: Array) -> Array:
    with torch.no_grad():
        return module.eval()(*map(torch.from_numpy, data)).numpy()


def image(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def test_module_is_traced_and_stays_as_it_is(net: Net, tmp_path: Path) -> None:
    net.train()
    net.conv.eval()
    example = image(1, 3, 8, 8)
    result = convert(net, tmp_path / "m", example_input=example, fp16=False, verify=True)
    assert (net.training, net.conv.training, net.drop.training) == (True, False, True)
    assert (result.framework, result.source_bytes) == ("pytorch", None)
    assert [(port.name, port.shape) for port in result.written.inputs] == [("image", "[?,3,?,?]")]
    assert result.verified.runtime == "torch"
    assert result.verified.difference < 1e-5
    other = image(2, 3, 5, 9)
    np.testing.assert_allclose(run_ir(result.xml, other)[0], expected(net, other), **CLOSE)
    manifest = json.loads((tmp_path / "m" / "ovfast.json").read_text())
    assert manifest["source"]["object"].endswith("test_convert_torch.Net")
    assert manifest["steps"][0]["options"]["verified"]["runtime"] == "torch"


def test_module_without_example_is_scripted(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    inputs = {"": Input(shape="1,3,?,8")}
    xml = convert(module, tmp_path / "m.xml", inputs=inputs, fp16=False, verify=True).xml
    data = image(1, 3, 7, 8)
    np.testing.assert_allclose(run_ir(xml, data)[0], expected(module, data), **CLOSE)


def test_several_inputs_by_name(tmp_path: Path) -> None:
    ids, weight = np.array([[1, 2], [0, 1]]), image(3, 4)
    example = {"weight": torch.from_numpy(weight), "ids": torch.from_numpy(ids)}
    result = convert(
        TwoInputs(), tmp_path / "m.xml", example_input=example, fp16=False, verify=True
    )
    assert {(port.name, port.type) for port in result.written.inputs} == {
        ("ids", "i64"),
        ("weight", "f32"),
    }
    answers = run_ir(result.xml, ids=ids, weight=weight)
    np.testing.assert_allclose(answers[0], weight[ids].sum(-1), **CLOSE)
    np.testing.assert_allclose(answers[1], weight * 2, **CLOSE)


def test_torchscript_file_with_steps(net: Net, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(net.eval(), torch.rand(1, 3, 8, 8)), tmp_path / "net.pt")
    options = Input(
        shape="1,3,8,6",
        layout="NCHW",
        data_layout="NHWC",
        data_type="u8",
        mean=7,
        scale=[2, 3, 4],
        reverse_channels=True,
    )
    result = convert(
        tmp_path / "net.pt", tmp_path / "m.xml", inputs={"": options}, fp16=False, verify=True
    )
    assert result.verified.difference < 1e-4
    data = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 3)).astype(np.uint8)
    prepared = ((data[..., ::-1] - np.float32(7)) / np.float32([2, 3, 4])).transpose(0, 3, 1, 2)
    wanted = expected(net, np.ascontiguousarray(prepared))
    np.testing.assert_allclose(run_ir(result.xml, data)[0], wanted, **CLOSE)


def test_exported_program_keeps_its_sizes(
    net: Net,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    # As in a new process, where the decoder tells of PyTorch's newer operators.
    monkeypatch.setattr(TorchFXPythonDecoder, "_decomp_table", None)
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(
        net.eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes={"image": {0: batch}}
    )
    torch.export.save(program, tmp_path / "net.pt2")
    caplog.clear()
    result = convert(tmp_path / "net.pt2", tmp_path / "m.xml", fp16=False, verify=True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert result.written.inputs[0].shape == "[?,3,8,8]"
    data = image(3, 3, 8, 8)
    np.testing.assert_allclose(run_ir(result.xml, data)[0], expected(net, data), **CLOSE)
    result = convert(program, tmp_path / "fixed.xml", inputs={"": Input(shape="1,3,8,8")})
    assert result.written.inputs[0].shape == "[1,3,8,8]"
    with pytest.raises(ModelError, match=r"exported for the shape \[\?,3,8,8\]"):
        convert(program, tmp_path / "other.xml", inputs={"": Input(shape="1,3,9,9")})


def test_outputs_are_selected_by_name(tmp_path: Path) -> None:
    example = (torch.tensor([[1, 2]]), torch.rand(3, 4))
    result = convert(TwoInputs(), tmp_path / "m.xml", example_input=example, outputs=["double"])
    assert [port.name for port in result.written.inputs] == ["weight"]
    weight = image(3, 4)
    np.testing.assert_allclose(run_ir(result.xml, weight)[0], weight * 2, **CLOSE)


def test_files_that_are_no_whole_model(net: Net, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    torch.save(net, tmp_path / "pickled.pth")
    torch.jit.save(torch.jit.script(net), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("weights.pt", "pickled.pth"):
        with pytest.raises(ModelError, match=r"not a whole model.*package\.module:function"):
            convert(tmp_path / name, tmp_path / "m")
    with pytest.raises(ModelError, match="not a PyTorch archive"):
        convert(tmp_path / "half.pt", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_module_that_cannot_be_traced(net: Net, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"test_convert_torch\.Net' cannot be traced"):
        convert(net, tmp_path / "m", example_input=torch.rand(1, 2, 8, 8))
    net.forward = lambda image: __import__("zlib").crc32(image)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="cannot be scripted; give an example input"):
        convert(net, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_operators_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    class Strange(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.eigvalsh(x @ x.T)

    with pytest.raises(ModelError, match=r"cannot convert: aten::linalg_eigvalsh"):
        convert(Strange(), tmp_path / "m", example_input=torch.rand(3, 3))


@pytest.fixture
def entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    (tmp_path / "entry_points_of_test.py").write_text(MODULE_SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "entry_points_of_test", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return lambda name: f"entry_points_of_test:{name}"


def test_entry_point(
    entry_points: Callable[[str], str], tmp_path: Path, ovfast_command: Ovfast
) -> None:
    before = list(sys.path)
    # Weights are random: built once, or the comparison would fail.
    result = ovfast_command(
        "convert", entry_points("build"), "-o", "m", "--input", "[1,3,?,8]", "--verify", "--json"
    )
    assert (result.code, result.err) == (0, "")
    printed = json.loads(result.out)
    assert [port["shape"] for port in printed["written"]["inputs"]] == ["[1,3,?,8]"]
    assert len(printed["written"]["outputs"]) == 2
    assert printed["verified"]["difference"] < printed["verified"]["tolerance"]
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "has no attribute 'nothing'"),
        ("constant", "is not a function"),
        ("three", "got 3 values"),
        ("torch.zeros", "zeros"),
    ],
)
def test_bad_entry_points(
    entry_points: Callable[[str], str], ovfast_command: Ovfast, name: str, message: str
) -> None:
    result = ovfast_command("convert", entry_points(name), "-o", "m")
    assert result.code == 1
    assert message in result.err
    assert not Path("m").exists()


def test_wrong_outputs_are_noticed_before_anything_is_written(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runtimes._torch

    def off(*arguments: Any) -> list[Array]:
        return [answer + np.float32(0.05) * answer.max() for answer in run(*arguments)]

    monkeypatch.setattr(runtimes, "_torch", off)
    example = torch.rand(1, 3, 8, 8)
    for fp16, limit in ((True, "0.02"), (False, "0.001")):
        with pytest.raises(Error, match=f"more than {limit}; nothing was written"):
            convert(net, tmp_path / "m", example_input=example, verify=True, fp16=fp16)
    monkeypatch.setattr(runtimes, "_torch", lambda *arguments: run(*arguments) * 2)
    with pytest.raises(Error, match="gives 2 outputs, the converted model 1"):
        convert(net, tmp_path / "m", example_input=example, verify=True)
    monkeypatch.setattr(runtimes, "_torch", lambda *a: [run(*a)[0] * np.float32("nan")])
    with pytest.raises(Error, match="differs"):
        convert(net, tmp_path / "m", example_input=example, verify=True)
    assert list(tmp_path.iterdir()) == []


def test_verify_says_which_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "m.onnx").write_bytes(b"never read")
    with pytest.raises(Error, match="ONNX: pip install onnxruntime"):
        convert(tmp_path / "m.onnx", tmp_path / "m", verify=True)
    (tmp_path / "m.pb").write_bytes(b"never read")
    with pytest.raises(ValueError, match="no runtime for TensorFlow: it knows those of ONNX"):
        convert(tmp_path / "m.pb", tmp_path / "m", verify=True)
