"""Small models for the tests of post-training quantization, made of numbers that are known."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset6
from openvino import opset13 as ops

CHANNELS = 16


@functools.cache
def digits() -> tuple[Any, Any, Any, Any]:
    """Images f32 [n, 1, 8, 8] from 0 to 1 and labels [n] to fit, then to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    fit, test = order[:1300], order[1300:]
    return images[fit], data.target[fit], images[test], data.target[test]


@functools.cache
def _kernel() -> Any:
    return np.random.default_rng(1).standard_normal((CHANNELS, 1, 3, 3)).astype(np.float32)


def _features(x: Any) -> Any:
    convolved = ops.convolution(x, ops.constant(_kernel()), [1, 1], [1, 1], [1, 1], [1, 1])
    pooled = ops.max_pool(ops.relu(convolved), [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
    return ops.reshape(pooled.output(0), np.array([0, -1]), True)


@functools.cache
def _readout() -> Any:
    """The linear layer that fits the labels best, by ridge regression."""
    images, labels, _, _ = digits()
    x = ops.parameter([-1, 1, 8, 8], np.float32)
    features = ov.compile_model(
        ov.Model([_features(x)], [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )(images)[0]
    wanted = np.eye(10)[labels] * 2 - 1
    gram = features.T @ features + 10 * np.eye(features.shape[1])
    return np.linalg.solve(gram, features.T @ wanted).astype(np.float32)


def classifier() -> ov.Model:
    """image [?, 1, 8, 8] -> a convolution of random kernels -> logits [?, 10]: 96 % are right."""
    x = ops.parameter([-1, 1, 8, 8], np.float32, name="image")
    x.output(0).set_names({"image"})
    logits = ops.matmul(_features(x), ops.constant(_readout()), False, False)
    logits.set_friendly_name("readout")
    logits.output(0).set_names({"logits"})
    return ov.Model([logits.output(0)], [x], "classifier")


def write_classifier(folder: Path) -> dict[str, Path]:
    """Write the classifier, and data to calibrate and to measure with."""
    images, _, tests, labels = digits()
    paths = {name: folder / name for name in ("model.xml", "inputs.npz", "labelled.npz")}
    ov.save_model(classifier(), paths["model.xml"], compress_to_fp16=False)
    np.savez(paths["inputs.npz"], image=images[:120])
    np.savez(paths["labelled.npz"], image=tests, labels=labels)
    return paths


def adder() -> ov.Model:
    """x [1, 4] -> the sum of all since the reset -> a matrix product [1, 4]."""
    x = ops.parameter([1, 4], np.float32, name="x")
    x.output(0).set_names({"x"})
    zeros = ops.constant(np.zeros((1, 4), np.float32))
    before = opset6.read_value(zeros, "sum", ov.Type.f32, ov.PartialShape([1, 4]))
    total = ops.add(before, x)
    kept = opset6.assign(total, "sum")
    weight = np.random.default_rng(2).standard_normal((4, 4)).astype(np.float32)
    y = ops.matmul(total, ops.constant(weight), False, False)
    y.output(0).set_names({"y"})
    return ov.Model([ops.result(y)], [kept], [x], "adder")


def images_only(shape: list[int], layout: str | None = None, kind: Any = np.float32) -> ov.Model:
    """A model with an image as input that does nothing of note."""
    x = ops.parameter(shape, kind, name="image")
    x.output(0).set_names({"image"})
    if layout:
        x.set_layout(ov.Layout(layout))
    return ov.Model([ops.relu(ops.convert(x, "f32")).output(0)], [x], "images")
