"""Engine options: types and ranges of what a caller gives, judged before any model is read."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from typing import Any

from ovfast import _core

__all__ = ["engine_options", "integer"]


def engine_options(
    *,
    device: str = "CPU",
    kv_cache_gb: float | None = None,
    max_context: int | None = None,
    num_threads: int | None = None,
    max_batch_tokens: int | None = None,
    max_sequences: int | None = None,
    prefix_caching: bool = True,
    packed: str = "auto",
    activation_precision: str = "int8",
    attention: str = "auto",
    tile_kb: int | None = None,
    tile_columns: int | None = None,
    gpu_operations: str = "openvino",
    properties: Mapping[str, Any] | None = None,
) -> _core.EngineOptions:
    """Make the engine's options of the arguments of `LLM`; None keeps the engine's own value.

    Raises:
        TypeError: An option of another type.
        ValueError: An option out of range.
    """
    if not isinstance(device, str):
        raise TypeError(f"device: expected str, got {type(device).__name__}")
    if not isinstance(prefix_caching, bool):
        raise TypeError(f"prefix_caching: expected bool, got {type(prefix_caching).__name__}")
    for name, text in (
        ("packed", packed),
        ("activation_precision", activation_precision),
        ("attention", attention),
        ("gpu_operations", gpu_operations),
    ):
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected str, got {type(text).__name__}")
    options = _core.EngineOptions(
        device=device,
        prefix_caching=prefix_caching,
        packed=packed,
        activation_precision=activation_precision,
        attention=attention,
        gpu_operations=gpu_operations,
    )
    if kv_cache_gb is not None:
        options.kv_cache_gb = _positive("kv_cache_gb", _real("kv_cache_gb", kv_cache_gb))
    for name, value in (
        ("max_context", max_context),
        ("num_threads", num_threads),
        ("max_batch_tokens", max_batch_tokens),
        ("max_sequences", max_sequences),
        ("tile_kb", tile_kb),
        ("tile_columns", tile_columns),
    ):
        if value is None:
            continue
        number = _positive(name, integer(name, value, "int or None"))
        try:
            setattr(options, name, number)
        except TypeError as error:  # the type was checked: it does not fit
            raise ValueError(f"{name} is {number}, which is too large") from error
    options.properties = _properties(properties)
    options.validate()
    return options


def integer(name: str, value: Any, expected: str) -> int:
    """Convert what is an integer and not a bool, NumPy's included; else raise TypeError."""
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected float or None, got {type(value).__name__}")
    return float(value)


def _positive(name: str, value: Any) -> Any:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}, expected a positive number or None")
    return value


def _properties(properties: Any) -> dict[str, str]:
    if properties is None:
        return {}
    if not isinstance(properties, Mapping):
        raise TypeError(
            f"properties: expected a mapping of names to values, got {type(properties).__name__}"
        )
    for name in properties:
        if not isinstance(name, str):
            raise TypeError(f"properties: expected names of type str, got {type(name).__name__}")
    return {name: _property_text(value) for name, value in properties.items()}


def _property_text(value: Any) -> str:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return str(value)
