"""What has to hold of a model's weights before they are compressed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ovfast.errors import ModelError
from ovfast.quantize.expand import Weight, constant_of
from ovfast.quantize.halves import let_go
from ovfast.quantize.options import MODES, WeightOptions

__all__ = ["check_finite", "find_ignored", "find_odd_layers"]

_BLOCK = 1 << 24
_LEAST_ADJUSTED_GROUP = 32
_SHOWN_NAMES = 3


def check_finite(weights: list[Weight]) -> None:
    """Raise ModelError with the name of a weight that holds a NaN or an infinity."""
    for weight in weights:
        constant = constant_of(weight)
        if constant is None:
            continue
        place = _first_not_finite(constant)
        let_go(constant.data)  # or all weights would be in memory at once
        if place is None:
            continue
        index = [int(i) for i in np.unravel_index(place, tuple(constant.get_output_shape(0)))]
        readers = ", ".join(taker.get_node().get_friendly_name() for taker in weight.takers)
        raise ModelError(
            f"the weight '{weight.name}', read by {readers}, holds a NaN or an infinity at "
            f"{index}; no scale would fit it. Export the model again, or repair its source."
        )


def _first_not_finite(constant: Any) -> int | None:
    kind = constant.get_element_type().get_type_name()
    bits = {"f16": (np.uint16, 0x7C00), "bf16": (np.uint16, 0x7F80), "f32": (np.uint32, 0x7F800000)}
    if kind not in bits:
        return None
    dtype, exponent = bits[kind]
    # The exponent is all ones for both. Integers, since NumPy has no fast test for f16.
    values = constant.data.reshape(-1).view(dtype)
    for first in range(0, values.size, _BLOCK):
        bad = (values[first : first + _BLOCK] & exponent) == exponent
        if bad.any():
            return first + int(bad.argmax())
    return None


def find_ignored(weights: list[Weight], patterns: tuple[str, ...]) -> list[str]:
    """Names of the layers that the patterns match whole.

    Raises ValueError for a pattern that matches no layer.
    """
    names = [taker.get_node().get_friendly_name() for weight in weights for taker in weight.takers]
    found = []
    for pattern in patterns:
        matched = [name for name in names if re.fullmatch(pattern, name)]
        if not matched:
            raise ValueError(
                f"ignored: expected patterns of layers, got {pattern!r}, which matches none; "
                f"layers are called {', '.join(names[:_SHOWN_NAMES])}, ..."
            )
        found += matched
    return sorted(set(found))


def find_odd_layers(weights: list[Weight], options: WeightOptions, ignored: list[str]) -> list[str]:
    """Find the layers whose columns the group does not divide, and say what becomes of them.

    Raises ValueError when it divides those of no layer, or of some and the fallback is "error".
    """
    columns = _columns(weights, options, ignored)
    if options.group == -1 or not columns:
        return []
    odd = {name: count for name, count in columns.items() if count % options.group}
    if not odd:
        return []
    if len(odd) == len(columns) or options.fallback == "error":
        counts = ", ".join(str(count) for count in sorted(set(odd.values())))
        which = "no layer" if len(odd) == len(columns) else "every layer"
        raise ValueError(
            f"group_size: expected a divisor of the columns of the layers, got {options.group}, "
            f"which does not divide {counts} ({_names(list(odd))})"
            + ("" if which == "no layer" else "; group_fallback=adjust takes smaller groups there")
        )
    notes = []
    for used in sorted({_fallback(count, options) for count in odd.values()}):
        names = [name for name, count in odd.items() if _fallback(count, options) == used]
        notes.append(
            f"group_size {options.group} does not divide the columns of {_names(names)}: {used}"
        )
    return notes


def _fallback(columns: int, options: WeightOptions) -> str:
    if options.fallback == "ignore":
        return "kept as they are"
    largest = columns & -columns
    if largest >= _LEAST_ADJUSTED_GROUP:
        return f"groups of {largest} there"
    backup = options.backup or MODES[options.mode].backup
    return f"{backup} there, since no power of two from {_LEAST_ADJUSTED_GROUP} on does"


def _columns(weights: list[Weight], options: WeightOptions, ignored: list[str]) -> dict[str, int]:
    """Columns of the layers that get the mode, by name."""
    found: dict[str, int] = {}
    products: list[str] = []
    for weight in weights:
        shape = list(weight.output.get_shape())
        for taker in weight.takers:
            node = taker.get_node()
            name = node.get_friendly_name()
            if name in ignored:
                continue
            if node.get_type_name() == "MatMul":
                products.append(name)
                found[name] = shape[-1] if node.get_attributes()["transpose_b"] else shape[-2]
            elif options.all_layers:
                found[name] = shape[-1]
    if products and not options.all_layers and MODES[options.mode].backup is not None:
        del found[products[-1]]  # the lm_head, which gets the backup
    return found


def _names(names: list[str]) -> str:
    rest = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")
