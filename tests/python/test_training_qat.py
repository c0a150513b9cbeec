"""Quantization-aware training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from training_models import (
    FREE_BATCH,
    Net,
    accuracy,
    batches,
    constants,
    count,
    digits,
    openvino_accuracy,
    torch,
    train,
    trained_net,
)

from ovfast import training
from ovfast.errors import Error


def inputs(number: int = 4) -> list:
    return [images for images, _ in batches(64, seed=0)][:number]


def test_a_model_learns_in_int8_and_its_directory_computes_the_same(tmp_path: Path) -> None:
    original = trained_net()
    assert accuracy(original) > 0.95
    model = training.prepare_qat(original, inputs())
    start = [p.detach().clone() for p in model.parameters()]
    train(model, epochs=1, lr=2e-4)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(start, model.parameters(), strict=True)
        if b.requires_grad
    ]
    assert all(moved)
    assert len(moved) == 14 + 10, "weights and the ranges of ten quantizers"
    assert accuracy(model) > 0.95

    result = training.export_model(model, digits()[2][:4], tmp_path / "int8", shapes=FREE_BATCH)
    assert result.form == "int8"
    assert result.difference < 1e-4
    # Of the input and the outputs of three activations, the addition and the mean.
    assert count(tmp_path / "int8", "FakeQuantize") >= 4
    int8 = [c.shape for c in constants(tmp_path / "int8", {"i8"}) if c.ndim in (2, 4)]
    assert sorted(int8) == [(10, 32), (16, 1, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3)]
    # Same predictions but for those that lie between two classes.
    assert abs(openvino_accuracy(tmp_path / "int8") - accuracy(model)) < 0.01


def test_the_original_stays_as_it_is() -> None:
    original = trained_net()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    model = training.prepare_qat(original, inputs(), preset="mixed")
    with torch.no_grad():
        model.first.weight.add_(1)
    after = original.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not model.training
    assert training.prepare_qat(original.train(), inputs(1)).training


def test_the_export_of_a_model_in_training_is_that_of_one_in_use(tmp_path: Path) -> None:
    model = training.prepare_qat(trained_net(), inputs()).train()
    images = digits()[2][:4]
    training.export_model(model, images, tmp_path / "m")
    compiled = ov.Core().compile_model(tmp_path / "m" / "openvino_model.xml", "CPU")
    with torch.no_grad():
        wanted = model.eval()(images).numpy()
    # Half a step of 8 bits; batch norm that had seen these images would move much more.
    assert np.abs(compiled(images.numpy())[0] - wanted).max() < np.abs(wanted).max() / 512


def test_ignored_operations_keep_their_weights(tmp_path: Path) -> None:
    model = training.prepare_qat(trained_net(), inputs(), ignored=[".*linear.*"])
    training.export_model(model, digits()[2][:4], tmp_path / "m")
    assert len([c for c in constants(tmp_path / "m", {"i8"}) if c.ndim in (2, 4)]) == 3


def test_no_compiler_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from nncf.torch.quantization import extensions
    from nncf.torch.quantization.quantize_functions import QuantizeAsymmetric

    from ovfast.training.fake_quantize import use_torch_operations

    def load() -> None:
        raise AssertionError("compiles")

    monkeypatch.setattr(extensions.QuantizedFunctionsCPULoader, "load", load)
    monkeypatch.setattr(extensions.QuantizedFunctionsCPU, "_loaded_namespace", None)
    use_torch_operations()
    values = torch.linspace(-2, 2, 101, requires_grad=True)
    low, width = torch.tensor([-1.0], requires_grad=True), torch.tensor([2.55], requires_grad=True)
    result = QuantizeAsymmetric.apply(values, low, width, 0, 255, 256)
    result.sum().backward()
    x = np.linspace(-2, 2, 101)
    # 256 levels from -1.00 to 1.55, 0.01 apart: to the nearest, outside to the ends.
    assert np.allclose(result.detach(), np.clip(np.round(x * 100), -100, 155) / 100, atol=1e-6)
    assert np.array_equal(values.grad, ((x >= -1) & (x <= 1.55)).astype(np.float32))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"preset": "fast"}, ValueError, "performance, mixed"),
        ({"subset_size": 0}, ValueError, "subset_size"),
        ({"ignored": ["nothing"]}, ValueError, "nothing"),
        ({"ignored": "linear"}, TypeError, "sequence"),
    ],
)
def test_wrong_options_are_refused(options: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        training.prepare_qat(Net(), inputs(1), **options)


def test_wrong_models_and_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="no inputs"):
        training.prepare_qat(Net(), [])
    with pytest.raises(TypeError, match="expected a tensor.*got list"):
        training.prepare_qat(Net(), [[1.0]])
    with pytest.raises(TypeError, match="nn.Sequential"):
        training.prepare_qat(torch.nn.Sequential(torch.nn.Linear(2, 2)), [torch.ones(1, 2)])
    with pytest.raises(TypeError, match="torch.nn.Module"):
        training.prepare_qat("model", [torch.ones(1, 2)])  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torchao" else found(name)
    )
    with pytest.raises(Error, match=r"torchao not installed.*pip install 'ovfast\[training\]'"):
        training.prepare_qat(Net(), inputs(1))


def test_progress_is_shown_on_stderr_or_not_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    training.prepare_qat(Net(), inputs(1))
    shown = capfd.readouterr()
    assert (shown.out, "Statistics collection" in shown.err) == ("", True)
    training.prepare_qat(Net(), inputs(1), progress=False)
    assert capfd.readouterr() == ("", "")
