"""A quantized model beside its source: size, time, error, metric."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovfast.quantize.accuracy import Metric
from ovfast.quantize.capture import RESET_STATE

__all__ = ["Comparison", "Run", "compare"]

_SECONDS = 6.0
_RUNS = (7, 200)
_ERROR_SAMPLES = 32


@dataclass(frozen=True)
class Run:
    """One way in which a model was run."""

    name: str
    """source or quantized."""
    precision: str
    """Of what is not quantized: f32, bf16 or f16."""
    bytes: int
    """Size of the files."""
    milliseconds: float
    """Median of one inference of the first calibration sample."""
    metric: float | None
    """With floats in f32."""


@dataclass(frozen=True)
class Comparison:
    """What a quantized model is beside its source, on the CPU."""

    runs: list[Run]
    """The source in f32; also as the plugin runs it by itself, where that is less; the result."""
    metric: str | None
    """The metric's name."""
    error: float
    """Root mean square of the difference of all outputs, relative to that of the source's, on up
    to 32 calibration samples, floats in f32."""
    repetitions: int
    """Inferences behind each median, in turn."""

    @property
    def speedup(self) -> float:
        """How much faster it is than the source in f32."""
        return self.runs[0].milliseconds / self.runs[-1].milliseconds


def compare(
    source: Any,
    quantized: Any,
    samples: Sequence[dict[str, Any]],
    metric: Metric | None,
    sizes: tuple[int, int],
) -> Comparison:
    """Measure two `openvino.Model`s; `sizes`: bytes of their files."""
    import openvino as ov

    core = ov.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = {"source": core.compile_model(source, "CPU", exact)}
    exact_result = core.compile_model(quantized, "CPU", exact)
    error = _error(compiled["source"], exact_result, samples[:_ERROR_SAMPLES])
    values = [metric(model) for model in (compiled["source"], exact_result)] if metric else None
    as_it_is = core.compile_model(source, "CPU")
    if _precision(as_it_is) != "f32":
        compiled["source, as it runs"] = as_it_is
    compiled["quantized"] = core.compile_model(quantized, "CPU")
    times = _times(list(compiled.values()), samples[0])
    runs = [
        Run(
            "quantized" if name == "quantized" else "source",
            _precision(model),
            sizes[name == "quantized"],
            1e3 * statistics.median(taken),
            None if values is None else values[name == "quantized"],
        )
        for (name, model), taken in zip(compiled.items(), times, strict=True)
    ]
    if values is not None and len(runs) > 2:
        # Measured in f32 only.
        runs[1] = Run(**{**vars(runs[1]), "metric": None})
    return Comparison(runs, metric.name if metric else None, error, len(times[0]))


def _precision(compiled: Any) -> str:
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def _infer(request: Any, sample: dict[str, Any]) -> Any:
    inputs = dict(sample)
    if inputs.pop(RESET_STATE, True) and request.query_state():
        request.reset_state()
    return request.infer(inputs, share_inputs=True)


def _error(source: Any, quantized: Any, samples: Sequence[dict[str, Any]]) -> float:
    requests = [model.create_infer_request() for model in (source, quantized)]
    difference = size = 0.0
    for sample in samples:
        pairs = zip(*(_infer(request, sample).values() for request in requests), strict=True)
        for one, other in pairs:
            if one.shape == other.shape:  # what selects boxes gives as many as it finds
                difference += float(np.square(one.astype(np.float64) - other).sum())
                size += float(np.square(one.astype(np.float64)).sum())
    return float(np.sqrt(difference / size)) if size else 0.0


def _times(models: Sequence[Any], sample: dict[str, Any]) -> list[list[float]]:
    """Seconds of inferences, the models in turn so that all see the same machine."""
    requests = [model.create_infer_request() for model in models]
    taken: list[list[float]] = [[] for _ in models]
    first = {**sample, RESET_STATE: True}
    for _ in range(2):
        for request in requests:
            _infer(request, first)
    end = time.perf_counter() + _SECONDS
    least, most = _RUNS
    while len(taken[0]) < least or (len(taken[0]) < most and time.perf_counter() < end):
        for request, times in zip(requests, taken, strict=True):
            start = time.perf_counter()
            _infer(request, first)
            times.append(time.perf_counter() - start)
    return taken
