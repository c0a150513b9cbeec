"""Removal of filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_models import (
    FREE_BATCH,
    Net,
    accuracy,
    count,
    digits,
    openvino_accuracy,
    operations,
    torch,
    train,
    trained_net,
)

from ovfast import training
from ovfast.errors import Error


def example() -> torch.Tensor:
    return digits()[2][:4]


class Chain(torch.nn.Module):
    """Three convolutions in a row, so that each layer's filters are chosen for themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Conv2d(1, 16, 3)
        self.b = torch.nn.Conv2d(16, 24, 3)
        self.c = torch.nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_a_smaller_network_learns_again_and_is_smaller_in_openvino(tmp_path: Path) -> None:
    original = trained_net()
    result = training.prune_filters(original, example(), ratio=0.5)
    assert result.layers == {"first": (16, 8), "second": (32, 16), "third": (32, 16)}
    model = train(result.model, epochs=5, lr=4e-3)
    assert accuracy(model) > 0.93
    assert accuracy(original) > 0.95, "the original stays"
    # 8 x 8 pixels, then 4 x 4: multiplications counted by hand, with few additions beside them.
    macs = [64 * 9 * a + 16 * 9 * a * b + 16 * 9 * b * b + b * 10 for a, b in ((16, 32), (8, 16))]
    assert result.macs == pytest.approx(tuple(macs), rel=0.06)
    parameters = sum(p.numel() for p in original.parameters())
    assert result.parameters == (parameters, sum(p.numel() for p in model.parameters()))

    training.export_model(model, example(), tmp_path / "m", shapes=FREE_BATCH)
    shapes = [
        list(node.input_value(1).get_shape())
        for node in operations(tmp_path / "m")
        if node.get_type_name() == "Convolution"
    ]
    assert sorted(shapes) == [[8, 1, 3, 3], [16, 8, 3, 3], [16, 16, 3, 3]]
    assert abs(openvino_accuracy(tmp_path / "m") - accuracy(model)) < 0.01


def test_a_smaller_network_can_be_quantized(tmp_path: Path) -> None:
    smaller = training.prune_filters(trained_net(), example(), ratio=0.5).model
    model = training.prepare_qat(smaller, [example()])
    assert training.export_model(model, example(), tmp_path / "m").form == "int8"
    assert count(tmp_path / "m", "FakeQuantize") >= 4


@pytest.mark.parametrize("ranking", ["l1", "geometric-median"])
def test_the_least_important_filters_go(ranking: str) -> None:
    torch.manual_seed(3)
    model = Chain()
    with torch.no_grad():
        # Four filters in the middle of all others, and four small ones far from them.
        model.b.weight.mul_(2).add_(0.3)
        model.b.weight[4:8] = 0.3 + 0.01 * torch.randn(model.b.weight[4:8].shape)
        model.b.weight[8:12] *= 0.1
    result = training.prune_filters(
        model, torch.randn(1, 1, 8, 8), ratio=0.25, ranking=ranking, multiple_of=2
    )
    assert result.layers == {"a": (16, 12), "b": (24, 18)}
    for name, layer in (("a", model.a), ("b", model.b)):
        flat = layer.weight.detach().double().flatten(1).numpy()
        if ranking == "l1":
            score = np.abs(flat).sum(1)
        else:
            score = np.linalg.norm(flat[:, None] - flat[None], axis=2).sum(1)
        kept = np.sort(np.argsort(score)[len(score) // 4 :])
        smaller = getattr(result.model, name)
        biases = layer.bias.detach().numpy()[kept]
        assert np.array_equal(smaller.bias.detach().numpy(), biases), name
    gone = {"l1": range(8, 12), "geometric-median": range(4, 8)}[ranking]
    assert not set(gone) & set(kept)
    # What b read of the filters of a that went is gone too.
    assert result.model.b.weight.shape == (18, 12, 3, 3)
    assert result.model.c.weight.shape == (5, 18, 1, 1)


def test_layers_of_different_worth_lose_different_shares() -> None:
    torch.manual_seed(3)
    model = Chain()
    with torch.no_grad():
        model.a.weight[:12] *= 0.01  # most filters of a do next to nothing
    image = torch.randn(1, 1, 8, 8)
    by_layer = training.prune_filters(model, image, ratio=0.3, multiple_of=1)
    overall = training.prune_filters(model, image, ratio=0.3, multiple_of=1, scope="global")
    assert by_layer.layers == {"a": (16, 11), "b": (24, 16)}
    assert overall.layers == {"a": (16, 4)}


def test_filters_stay_where_they_are_asked_to_and_at_the_output() -> None:
    result = training.prune_filters(trained_net(), example(), ratio=0.5, ignored=["first"])
    assert result.layers == {"second": (32, 16), "third": (32, 16)}
    assert result.model(example()).shape == (4, 10)
    result = training.prune_filters(trained_net(), example(), ratio=0.5, multiple_of=1)
    assert set(result.layers) == {"first", "second", "third"}
    # 16 filters of which a third goes: 10 would be left, 8 are a multiple.
    result = training.prune_filters(trained_net(), example(), ratio=0.35)
    assert all(after % 8 == 0 for _, after in result.layers.values())


def test_frozen_weights_stay_frozen() -> None:
    model = trained_net().train()
    model.second.weight.requires_grad_(False)
    smaller = training.prune_filters(model, example(), ratio=0.5).model
    frozen = [name for name, p in smaller.named_parameters() if not p.requires_grad]
    assert frozen == ["second.weight"]
    assert smaller.training


class Fixed(torch.nn.Module):
    """Insists on its number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(1, 16, 3), torch.nn.Conv2d(16, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).reshape(-1, 16, 6, 6) * 2)


def test_what_cannot_be_done_is_refused() -> None:
    image = torch.randn(1, 1, 8, 8)
    with pytest.raises(ValueError, match="ratio must lie"):
        training.prune_filters(Net(), image, ratio=1.5)
    with pytest.raises(ValueError, match="l1, geometric-median"):
        training.prune_filters(Net(), image, ratio=0.5, ranking="l3")
    with pytest.raises(ValueError, match="layer or global"):
        training.prune_filters(Net(), image, ratio=0.5, scope="all")
    with pytest.raises(ValueError, match="no layer fourth"):
        training.prune_filters(Net(), image, ratio=0.5, ignored=["fourth"])
    with pytest.raises(ValueError, match="no layer can lose"):
        training.prune_filters(Net(), image, ratio=0.5, multiple_of=64)
    with pytest.raises(ValueError, match="prepared by NNCF"):
        training.prune_filters(training.prepare_pruning(Net(), image), image, ratio=0.5)
    with pytest.raises(Error, match="cannot be removed"):
        training.prune_filters(Fixed(), image, ratio=0.5)
