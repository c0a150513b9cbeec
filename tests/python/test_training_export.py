"""From a torch module to a model directory."""

from __future__ import annotations

import json
from pathlib import Path

import openvino as ov
import pytest
from training_models import Net, torch

from ovfast import training
from ovfast.errors import Error

IMAGE = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)


class Pair(torch.nn.Module):
    """Named inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict:
        return {"sum": self.linear(left + right), "difference": self.linear(left - right)}


@pytest.mark.parametrize("named", [True, False])
def test_inputs_may_be_named_or_in_a_tuple(tmp_path: Path, named: bool) -> None:
    model = Pair()
    left, right = torch.randn(2, 4), torch.randn(2, 4)
    example = {"right": right, "left": left} if named else (left, right)
    result = training.export_model(
        model, example, tmp_path / "m", shapes=[[-1, 4]] * 2, compress_to_f16=False
    )
    assert (result.form, result.sparsity) == ("float", None)
    assert result.difference < 1e-6
    written = ov.Core().read_model(tmp_path / "m" / "openvino_model.xml")
    assert {port.get_any_name() for port in written.inputs} == {"left", "right"}
    assert all(str(port.partial_shape) == "[?,4]" for port in written.inputs)


def test_the_directory_says_what_it_is(tmp_path: Path) -> None:
    training.export_model(Net(), IMAGE, tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "ovfast.json").read_text())
    assert manifest["source"] == {"kind": "torch", "class": "Net"}
    (step,) = manifest["steps"]
    assert step["name"] == "training"
    assert step["options"]["form"] == "float"
    assert {"torch", "nncf", "openvino"} <= step["tools"].keys()
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "openvino_model.bin",
        "openvino_model.xml",
        "ovfast.json",
    ]


def test_batch_norm_is_exported_as_in_use_and_the_model_stays_in_training(tmp_path: Path) -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.export_model(model, IMAGE, tmp_path / "m")
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        wanted = model.eval()(IMAGE).numpy()
    got = ov.Core().compile_model(tmp_path / "m" / "openvino_model.xml", "CPU")(IMAGE.numpy())[0]
    assert abs(got - wanted).max() < 0.02 * abs(wanted).max()


def test_nothing_is_written_over_unasked(tmp_path: Path) -> None:
    training.export_model(Net(), IMAGE, tmp_path / "m")
    with pytest.raises(ValueError, match="another model"):
        training.export_model(Net(), IMAGE, tmp_path / "m")
    training.export_model(Net(channels=8), IMAGE, tmp_path / "m", force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("long")
    with pytest.raises(ValueError, match="not a model directory"):
        training.export_model(Net(), IMAGE, tmp_path / "mine", force=True)


class Singular(torch.nn.Module):
    """Has no counterpart in OpenVINO."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x)


def test_a_model_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Error, match="cannot convert"):
        training.export_model(Singular(), torch.ones(2, 2), tmp_path / "m")
    monkeypatch.setattr("ovfast.training.export.call", lambda model, x: model(x) * 1.2)
    with pytest.raises(Error, match="differ from torch's by 0.167"):
        training.export_model(Net(), IMAGE, tmp_path / "m")
    monkeypatch.setattr("ovfast.training.export.call", lambda model, x: model(x) * float("nan"))
    with pytest.raises(Error, match="differ from torch's by nan"):
        training.export_model(Net(), IMAGE, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("ovfast.training.export._compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.export_model(Net(), IMAGE, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 shapes, one an input, got 2"):
        training.export_model(Net(), IMAGE, tmp_path / "m", shapes=[[1], [1]])
    with pytest.raises(TypeError, match="torch.nn.Module"):
        training.export_model(torch.ones(1), IMAGE, tmp_path / "m")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got list"):
        training.export_model(Net(), [IMAGE], tmp_path / "m")
