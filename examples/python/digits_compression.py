"""Four ways to a smaller network, on scikit-learn's handwritten digits.

A convolutional network is trained, then compressed with ovfast.training: int8 while training, four
fifths of its weights set to zero, half of its filters removed, and filters and int8 together. Each
becomes an OpenVINO directory, whose accuracy and speed (16 images at once) are measured.

    pip install 'ovfast[training]'
    python digits_compression.py            # a table
    python digits_compression.py --json

The digits have 8 x 8 pixels, on which any network takes microseconds: they are scaled up to
32 x 32, so that there is something to compute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from sklearn.datasets import load_digits
from torch import nn

from ovfast import training

BATCH = 64  # to train with
MEASURED = 16  # images at once when the speed is measured


class Net(nn.Module):
    """19 million multiplications for an image."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for filters, stride in ((32, 1), (64, 2), (128, 2), (128, 1)):
            layers += [
                nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
            channels = filters
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, 1, 32, 32] to logits [n, 10]."""
        return self.classifier(self.features(images).mean((2, 3)))


class Digits:
    """1,397 images to train with and 400 to test with."""

    def __init__(self) -> None:
        data = load_digits()
        images = torch.tensor(data.images[:, None] / 16, dtype=torch.float32)
        images = nn.functional.interpolate(images, size=32, mode="bilinear")
        labels = torch.tensor(data.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        train, test = order[:1397], order[1397:]
        self.images, self.labels = images[train], labels[train]
        self.test_images, self.test_labels = images[test], labels[test]

    def batches(self, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All training images in random order."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        for part in order.split(BATCH):
            yield self.images[part], self.labels[part]

    def inputs(self) -> list[torch.Tensor]:
        """Eight batches without labels, to calibrate with."""
        return [images for images, _ in self.batches(0)][:8]


def train(
    model: nn.Module,
    digits: Digits,
    epochs: int,
    lr: float,
    after_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Train as any torch module is trained; return it in eval mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = epochs * len(list(digits.batches(0)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for epoch in range(epochs):
        for images, labels in digits.batches(epoch):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            after_step()
    return model.eval()


def compress(digits: Digits, folder: Path) -> dict[str, Path]:
    """Train all variants and export them; return their directories."""
    images = digits.test_images[:MEASURED]
    directories: dict[str, Path] = {}
    start = time.perf_counter()

    def export(name: str, model: nn.Module, **options: Any) -> None:
        directories[name] = folder / name.replace(" ", "-")
        training.export_model(model, images, directories[name], **options)
        print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)

    torch.manual_seed(0)
    net = train(Net(), digits, epochs=6, lr=4e-3)
    export("float", net)

    model = training.prepare_qat(net, digits.inputs())
    export("int8", train(model, digits, epochs=1, lr=2e-4))

    model = training.prepare_pruning(net, images)
    steps = 2 * len(list(digits.batches(0)))  # two of three epochs to get there
    pruning = training.PruningSchedule(model, target=0.8, steps=steps, every=4)
    train(model, digits, epochs=3, lr=2e-3, after_step=pruning.step)
    training.adapt_batch_norm(model, digits.inputs())
    export("80 % zeros", model, expect_sparsity=0.8)

    smaller = training.prune_filters(net, images, ratio=0.5, ranking="geometric-median").model
    train(smaller, digits, epochs=5, lr=4e-3)
    export("half the filters", smaller)

    model = training.prepare_qat(smaller, digits.inputs())
    export("half the filters, int8", train(model, digits, epochs=1, lr=2e-4))
    return directories


def measure(digits: Digits, directories: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Accuracy on the test images and the time of 16 images; the variants take turns."""
    core = ov.Core()
    precisions = {"f32": {"INFERENCE_PRECISION_HINT": "f32"}, "default": {}}
    requests: dict[tuple[str, str], ov.InferRequest] = {}
    times: dict[tuple[str, str], list[float]] = {}
    default = ""
    for name, directory in directories.items():
        for precision, properties in precisions.items():
            model = core.compile_model(directory / "openvino_model.xml", "CPU", properties)
            requests[name, precision] = model.create_infer_request()
            times[name, precision] = []
            default = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    images = digits.test_images[:MEASURED].numpy()
    for _ in range(rounds):
        for key, request in requests.items():
            request.infer([images])  # its weights are in the cache again
            begin = time.perf_counter()
            for _ in range(10):
                request.infer([images])
            times[key].append((time.perf_counter() - begin) / 10)
    rows = []
    for name, directory in directories.items():
        right = 0
        request = requests[name, "default"]
        for first in range(0, len(digits.test_labels), MEASURED):
            part = slice(first, first + MEASURED)
            logits = next(iter(request.infer([digits.test_images[part].numpy()]).values()))
            right += int((logits.argmax(1) == digits.test_labels[part].numpy()).sum())
        row: dict[str, Any] = {
            "name": name,
            "accuracy": right / len(digits.test_labels),
            "bytes": sum(file.stat().st_size for file in directory.glob("openvino_model.*")),
        }
        for precision in precisions:
            seconds = statistics.median(times[name, precision])
            row[f"seconds_{precision}"] = seconds
            row[f"speedup_{precision}"] = statistics.median(times["float", precision]) / seconds
        rows.append(row)
    return {"default_precision": default, "rounds": rounds, "models": rows}


def print_table(result: dict[str, Any]) -> None:
    """Print the result for people."""
    default = result["default_precision"]
    print(
        f"{'':24}{'accuracy':>9}{'KB':>6}{'ms, f32':>10}{'speed-up':>10}"
        f"{f'ms, {default}':>10}{'speed-up':>10}"
    )
    for row in result["models"]:
        print(
            f"{row['name']:24}{row['accuracy']:9.2%}{row['bytes'] / 1e3:6.0f}"
            f"{row['seconds_f32'] * 1e3:10.3f}{row['speedup_f32']:10.2f}"
            f"{row['seconds_default'] * 1e3:10.3f}{row['speedup_default']:10.2f}"
        )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--keep", type=Path, help="keep the directories in this folder")
    parser.add_argument("--rounds", type=int, default=31, help="of the measurement")
    options = parser.parse_args()
    start = time.perf_counter()
    digits = Digits()
    with tempfile.TemporaryDirectory() as temporary:
        directories = compress(digits, options.keep or Path(temporary))
        result = measure(digits, directories, options.rounds)
    result["seconds"] = time.perf_counter() - start
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
