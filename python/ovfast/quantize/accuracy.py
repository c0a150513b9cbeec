"""A metric of a person's own, or a ready one: measuring a model with it, and holding it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovfast.errors import Error
from ovfast.quantize.capture import RESET_STATE
from ovfast.quantize.ptq_options import TOP1, ActivationOptions
from ovfast.quantize.samples import LABELS, find_function, read_labelled

__all__ = ["Metric", "read_metric", "top1"]


@dataclass(frozen=True)
class Metric:
    """A function (compiled model, data) -> number, more is better, and its data."""

    name: str
    function: Callable[[Any, Iterable[Any]], float]
    data: list[Any]

    def __call__(self, compiled_model: Any, data: Iterable[Any] | None = None) -> float:
        """Measure, with all data or a part of it. Raises Error when the function fails."""
        try:
            value = float(self.function(compiled_model, self.data if data is None else data))
        except Exception as error:
            raise Error(
                f"the metric {self.name} failed: {type(error).__name__}: {error}"
            ) from error
        if not math.isfinite(value):
            raise Error(f"the metric {self.name} gave {value}: expected a finite number")
        return value

    def measure(self, model: Any) -> float:
        """Measure an `openvino.Model` on the CPU, floats in f32."""
        import openvino as ov

        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return self(compiled)


def read_metric(model: Any, options: ActivationOptions) -> Metric | None:
    """Find the metric and read its data; None when none is wanted.

    Raises ValueError for what cannot be found or read, or does not fit the `openvino.Model`.
    """
    if options.validation is None:
        return None
    wanted = options.metric or TOP1
    data: list[Any]
    if isinstance(options.validation, (str, Path)):
        if Path(options.validation).exists():
            data = list(read_labelled(model, Path(options.validation)))
        else:
            data = list(find_function("validation", str(options.validation))())
    else:
        data = list(options.validation)
    if not data:
        raise ValueError("validation: expected data to measure with, got none")
    if wanted == TOP1:
        if not all(isinstance(item, dict) and LABELS in item for item in data):
            raise ValueError(
                f"validation: {TOP1} needs dictionaries of inputs and '{LABELS}', one a batch"
            )
        return Metric(TOP1, top1, data)
    if isinstance(wanted, str):
        return Metric(wanted, find_function("metric", wanted), data)
    return Metric(getattr(wanted, "__qualname__", type(wanted).__name__), wanted, data)


def top1(compiled_model: Any, data: Iterable[Any]) -> float:
    """Share of rows whose largest number in the first output, [n, ...], is at their label."""
    right = total = 0
    for item in data:
        inputs = {name: value for name, value in item.items() if name not in (LABELS, RESET_STATE)}
        labels = np.asarray(item[LABELS])
        output = np.asarray(compiled_model(inputs)[0]).reshape(len(labels), -1)
        right += int((output.argmax(axis=1) == labels).sum())
        total += len(labels)
    return right / total
