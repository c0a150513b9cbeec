"""Magnitude pruning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_models import (
    FREE_BATCH,
    Net,
    accuracy,
    batches,
    constants,
    digits,
    openvino_accuracy,
    torch,
    train,
    trained_net,
)

from ovfast import training
from ovfast.errors import Error

NAMES = ("first.weight", "second.weight", "third.weight", "last.weight")


def example() -> torch.Tensor:
    return digits()[2][:4]


def pruned_to(target: float, scope: str = "global") -> torch.nn.Module:
    model = training.prepare_pruning(trained_net(), example())
    training.PruningSchedule(model, target=target, steps=1, scope=scope).step()
    return model


def test_a_model_learns_to_do_with_a_fifth_of_its_weights(tmp_path: Path) -> None:
    original = trained_net()
    model = training.prepare_pruning(original, example())
    assert training.sparsity(model).ratio == 0
    schedule = training.PruningSchedule(model, target=0.8, steps=30, every=3)
    train(model, epochs=2, lr=2e-3, after_step=schedule.step)
    assert training.sparsity(model).ratio == pytest.approx(0.8, abs=1e-3)
    assert accuracy(model) > 0.93

    training.adapt_batch_norm(model, [images for images, _ in batches(64, seed=0)])
    result = training.export_model(
        model, example(), tmp_path / "m", shapes=FREE_BATCH, expect_sparsity=0.8
    )
    assert result.form == "float"
    assert result.difference < 2e-3  # f16 weights
    assert result.sparsity == pytest.approx(0.8, abs=1e-3)
    weights = [c for c in constants(tmp_path / "m", {"f16"}) if c.ndim == 4 and c.size > 100]
    weights += [c for c in constants(tmp_path / "m", {"f16"}) if c.shape == (10, 32)]
    assert sum(w.size for w in weights) == sum(original.get_parameter(n).numel() for n in NAMES)
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    assert zeros == pytest.approx(0.8, abs=1e-3)
    assert openvino_accuracy(tmp_path / "m") > 0.93
    assert not any(name.startswith("__nncf") for name in original.state_dict())


def test_the_smallest_weights_go() -> None:
    original = trained_net()
    weights = {name: original.get_parameter(name).detach().numpy() for name in NAMES}

    # The least of all, each layer divided by its norm.
    scaled = {name: np.abs(w) / np.linalg.norm(w) for name, w in weights.items()}
    limit = np.quantile(np.concatenate([s.ravel() for s in scaled.values()]), 0.6)
    result = training.sparsity(pruned_to(0.6))
    assert result.ratio == pytest.approx(0.6, abs=1e-3)
    assert set(result.tensors) == set(NAMES)
    for name, share in result.tensors.items():
        assert share == pytest.approx((scaled[name] <= limit).mean(), abs=2e-3), name
    assert result.of_all == pytest.approx(
        0.6 * sum(w.size for w in weights.values()) / sum(p.numel() for p in original.parameters()),
        abs=1e-3,
    )

    # The same share of each layer.
    baked = training.bake_pruning(pruned_to(0.6, scope="layer"), expect=0.6)
    for name, w in weights.items():
        kept = baked.get_parameter(name).detach().numpy()
        assert (kept == 0).mean() == pytest.approx(0.6, abs=1 / w.size + 1e-3), name
        assert np.abs(w[kept == 0]).max() <= np.abs(w[kept != 0]).min(), name
        assert np.array_equal(w[kept != 0], kept[kept != 0]), name
        assert baked.get_parameter(name).requires_grad


def test_schedules_go_their_ways() -> None:
    model = training.prepare_pruning(trained_net(), example())
    polynomial = training.PruningSchedule(model, target=0.9, initial=0.1, steps=10)
    exponential = training.PruningSchedule(model, target=0.75, steps=2, shape="exponential")
    # 0.1 + 0.8 (1 - 0.5^3); half of the weights stay in each of two steps.
    assert polynomial.ratio_at(5) == pytest.approx(0.8)
    assert [polynomial.ratio_at(n) for n in (0, 10, 99)] == pytest.approx([0.1, 0.9, 0.9])
    assert [exponential.ratio_at(n) for n in (0, 1, 2)] == pytest.approx([0, 0.5, 0.75])
    seen = []
    for _ in range(3):
        exponential.step()
        seen.append(training.sparsity(model).ratio)
    assert seen == pytest.approx([0.5, 0.75, 0.75], abs=1e-3)


def test_masks_are_chosen_every_so_many_steps_and_at_the_end() -> None:
    model = training.prepare_pruning(trained_net(), example())
    schedule = training.PruningSchedule(model, target=0.5, steps=5, every=2, power=1)
    seen = []
    for _ in range(5):
        schedule.step()
        seen.append(training.sparsity(model).ratio)
    assert seen == pytest.approx([0, 0.2, 0.2, 0.4, 0.5], abs=1e-3)


def test_batch_norm_sees_the_data_again() -> None:
    model = pruned_to(0.5)
    images = digits()[0][:256]
    weight = model.first.weight.detach()
    mean = model.norm1.running_mean.clone()
    with torch.no_grad():
        mask = training.bake_pruning(model).first.weight
        x = torch.nn.functional.conv2d(images, mask, model.first.bias, padding=1)
    training.adapt_batch_norm(model, [images])
    expected = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
    assert torch.allclose(model.norm1.running_mean, expected, atol=1e-5)
    assert torch.equal(model.first.weight, weight)
    assert not model.training
    with pytest.raises(ValueError, match="no batch normalization"):
        training.adapt_batch_norm(torch.nn.Linear(2, 2), [torch.ones(1, 2)])
    with pytest.raises(ValueError, match="without any batch"):
        training.adapt_batch_norm(model, [])


def test_a_pruned_model_can_be_quantized_too(tmp_path: Path) -> None:
    model = training.prepare_qat(pruned_to(0.5), [example()])
    train(model, epochs=1, lr=1e-4)
    result = training.export_model(model, example(), tmp_path / "m", expect_sparsity=0.5)
    assert (result.form, result.sparsity) == ("int8", pytest.approx(0.5, abs=1e-3))
    weights = [c for c in constants(tmp_path / "m", {"i8"}) if c.ndim in (2, 4)]
    assert len(weights) == 4
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    assert zeros >= 0.499  # and what rounds to zero
    with pytest.raises(ValueError, match="quantized too"):
        training.bake_pruning(model)


def test_less_than_was_asked_for_is_an_error(tmp_path: Path) -> None:
    model = training.prepare_pruning(trained_net(), example())
    schedule = training.PruningSchedule(model, target=0.8, steps=10)
    schedule.step()
    with pytest.raises(Error, match=r"expected 80.0% .* got 21.7%"):
        training.export_model(model, example(), tmp_path / "m", expect_sparsity=0.8)
    with pytest.raises(Error, match="stepped to its end"):
        training.bake_pruning(model, expect=0.8)
    assert not (tmp_path / "m").exists()
    with pytest.raises(ValueError, match="none"):
        training.export_model(Net(), example(), tmp_path / "m", expect_sparsity=0.8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": 1.0}, "target must lie between 0 and 1"),
        ({"initial": 0.6}, "below target"),
        ({"steps": 0}, "at least 1"),
        ({"every": 0}, "at least 1"),
        ({"shape": "linear"}, "polynomial, exponential"),
        ({"power": 0.0}, "positive"),
        ({"scope": "channel"}, "global, layer"),
    ],
)
def test_wrong_options_are_refused(options: dict, text: str) -> None:
    model = training.prepare_pruning(Net(), example())
    with pytest.raises(ValueError, match=text):
        training.PruningSchedule(model, **{"target": 0.5, "steps": 10, **options})


def test_models_without_masks_are_refused() -> None:
    for function in (training.sparsity, training.bake_pruning):
        with pytest.raises(ValueError, match="no masks"):
            function(Net())
    with pytest.raises(ValueError, match="no masks"):
        training.PruningSchedule(Net(), target=0.5, steps=1)
    with pytest.raises(ValueError, match="nothing"):
        training.prepare_pruning(Net(), example(), ignored=["nothing"])
