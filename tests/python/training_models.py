"""What the tests of ovfast.training train: a small network with a residual, on scikit-learn's digits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

_WHY = "pip install 'ovfast[training]'"
torch = pytest.importorskip("torch", reason=_WHY)
for _package in ("nncf", "torchao", "torch_pruning", "sklearn"):
    pytest.importorskip(_package, reason=_WHY)

# Tensors of this size are computed faster by one thread, above all beside other programs.
torch.set_num_threads(1)


class Net(torch.nn.Module):
    """Two convolutions whose outputs are added, one before them, and a linear layer."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.first, self.norm1 = conv(1, 16, 3, padding=1), norm(16)
        self.second, self.norm2 = conv(16, channels, 3, padding=1, stride=2), norm(channels)
        self.third, self.norm3 = conv(channels, channels, 3, padding=1), norm(channels)
        self.last = torch.nn.Linear(channels, 10)

    def forward(self, images: Any) -> Any:
        x = torch.relu(self.norm1(self.first(images)))
        x = torch.relu(self.norm2(self.second(x)))
        x = torch.relu(x + self.norm3(self.third(x)))
        return self.last(x.mean((2, 3)))


@functools.cache
def digits() -> tuple[Any, Any, Any, Any]:
    """Images [n, 1, 8, 8] f32 and labels [n] to train with, then to test with."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return images[train], labels[train], images[test], labels[test]


def batches(size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    images, labels, _, _ = digits()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    for part in order.split(size):
        yield images[part], labels[part]


def train(model: Any, epochs: int, lr: float, after_step: Any = None) -> Any:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    model.train()
    for epoch in range(epochs):
        for images, labels in batches(64, seed=epoch):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
    return model.eval()


@functools.cache
def _trained() -> Any:
    torch.manual_seed(0)
    return train(Net(), epochs=8, lr=4e-3)


def trained_net() -> Any:
    """A copy of a network that reads digits, in eval mode."""
    return copy.deepcopy(_trained())


def accuracy(model: Any) -> float:
    _, _, images, labels = digits()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def openvino_accuracy(directory: Path) -> float:
    """Of a directory whose batch is free."""
    _, _, images, labels = digits()
    compiled = ov.Core().compile_model(directory / "openvino_model.xml", "CPU")
    logits = next(iter(compiled(images.numpy()).values()))
    return float((logits.argmax(1) == labels.numpy()).mean())


def constants(directory: Path, types: set[str]) -> list[np.ndarray]:
    """The constants of a written model that have one of these element types."""
    model = ov.Core().read_model(directory / "openvino_model.xml")
    return [
        node.get_data()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in types
    ]


def constant_shapes(directory: Path, kind: str) -> list[list[int]]:
    """The shapes of constants of one type; `constants` has 4-bit ones as bytes."""
    return [
        list(node.get_output_shape(0))
        for node in operations(directory)
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == kind
    ]


def operations(directory: Path) -> list[Any]:
    return ov.Core().read_model(directory / "openvino_model.xml").get_ordered_ops()


def count(directory: Path, kind: str) -> int:
    return sum(node.get_type_name() == kind for node in operations(directory))


FREE_BATCH = [[-1, 1, 8, 8]]
