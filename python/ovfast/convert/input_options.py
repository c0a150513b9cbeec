"""What is to become of one input of a model, and whether that makes sense by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["ELEMENT_TYPES", "Input", "shape_text"]

ELEMENT_TYPES = ("boolean", "f16", "f32", "f64", "bf16", "i8", "i16", "i32", "i64", "u8", "u16")
"""How element types are spelled; `boolean` as OpenVINO spells it."""

RESIZE = ("linear", "cubic", "nearest")

Dimension = int | tuple[int, int | None] | None
"""A size, a range from and to (None: no upper bound), or None for any size."""

_DIMENSION = re.compile(r"\?|-1|\d+|(\d*)\.\.(\d*)|\.\.\.")
_LAYOUT = re.compile(r"(?:[A-Z?]|\.\.\.)+")


@dataclass(frozen=True)
class Input:
    """How one input of a converted model is to be; what is not given stays as the model has it.

    Steps on the data run in this order: conversion to the model's type, resizing, reversing of
    channels, (data - mean) / scale, conversion to the model's layout. Mean and scale are thus in
    the model's order of channels. Raises ValueError when options contradict each other.
    """

    shape: str | Sequence[Dimension] | None = None
    """The model's shape: "1,3,?,1..512" or [1, 3, None, (1, 512)]."""
    cut: bool = False
    """The model is to begin at this tensor, which lies inside of it."""
    type: str | None = None
    """Element type, of a tensor where the model is cut; by default the one it has in the model."""
    layout: str | None = None
    """What the model's dimensions are, for example "NCHW"."""
    data_layout: str | None = None
    """What those of the data are that the written model takes, for example "NHWC"."""
    data_type: str | None = None
    """Element type of the data that the written model takes, for example "u8"."""
    mean: float | Sequence[float] | None = None
    """Subtracted from the data: one number, or one for each channel."""
    scale: float | Sequence[float] | None = None
    """Divides the data: one number, or one for each channel."""
    reverse_channels: bool = False
    """The data has its channels in the opposite order (BGR instead of RGB)."""
    resize: str | None = None
    """Data of any height and width is resized to the model's: linear, cubic or nearest."""

    def __post_init__(self) -> None:
        if self.shape is not None:
            shape_text(self.shape)
        for what, given in (("element type", self.type), ("data type", self.data_type)):
            if given is not None and given not in ELEMENT_TYPES:
                raise ValueError(
                    f"unknown {what} '{given}': expected one of {', '.join(ELEMENT_TYPES)}"
                )
        if self.type is not None and not self.cut:
            raise ValueError(
                "an element type can be given where a model is cut; the type of the data that the "
                "written model takes is the data type (--data-type)"
            )
        self._check_layouts()
        for what in ("mean", "scale"):
            if getattr(self, what) is not None:
                object.__setattr__(self, what, _finite(what, getattr(self, what)))
        if any(value == 0 for value in self.scales):
            raise ValueError("the scale divides the data: it must not be 0")
        if self.resize is not None and self.resize not in RESIZE:
            raise ValueError(f"unknown resize '{self.resize}': expected {', '.join(RESIZE)}")
        if self.reverse_channels:
            self._need_letters("C", "reversing of channels")
        if self.resize:
            self._need_letters("HW", "resizing")
        if len(self.means) > 1 or len(self.scales) > 1:
            self._need_letters("C", "a mean or scale for each channel")

    @property
    def means(self) -> list[float]:
        """The mean as a list, which may be empty."""
        return _as_list(self.mean)

    @property
    def scales(self) -> list[float]:
        """The scale as a list, which may be empty."""
        return _as_list(self.scale)

    @property
    def preprocessed(self) -> bool:
        """Whether the written model takes other data than the model itself."""
        steps = (self.data_layout, self.data_type, self.mean, self.scale, self.resize)
        return self.reverse_channels or any(step is not None for step in steps)

    def _check_layouts(self) -> None:
        for what, layout in (("layout", self.layout), ("data layout", self.data_layout)):
            if layout is None:
                continue
            letters = [letter for letter in layout.replace("...", "") if letter != "?"]
            whole = _LAYOUT.fullmatch(layout) and layout.count("...") <= 1
            if not whole or len(set(letters)) != len(letters):
                raise ValueError(
                    f"'{layout}' is not a {what}: expected one capital letter for each dimension, "
                    "? for one without a name and ... for any number of them, for example NCHW"
                )
        if self.data_layout is None:
            return
        if self.layout is None:
            raise ValueError(
                f"the data layout {self.data_layout} needs the model's layout (--layout)"
            )
        if sorted(self.layout) != sorted(self.data_layout) or {"?", "."} & set(self.layout):
            raise ValueError(
                f"the data layout {self.data_layout} must have the letters of the layout "
                f"{self.layout} in another order, all of them named"
            )

    def _need_letters(self, letters: str, purpose: str) -> None:
        if not set(letters) <= set(self.layout or ""):
            raise ValueError(
                f"{purpose} needs a layout with {' and '.join(letters)}, for example --layout NCHW; "
                f"got {self.layout or 'none'}"
            )


def shape_text(shape: str | Sequence[Dimension]) -> str:
    """Return a shape as OpenVINO reads it, for example "[1,3,?,1..512]".

    Raises ValueError when it is none.
    """
    if isinstance(shape, str):
        inside = shape.strip().removeprefix("[").removesuffix("]")
        dimensions = [part.strip() for part in inside.split(",")] if inside.strip() else []
    else:
        dimensions = [_dimension_text(dimension) for dimension in shape]
    for dimension in dimensions:
        found = _DIMENSION.fullmatch(dimension)
        if not found or (found[1] and found[2] and int(found[1]) > int(found[2])):
            raise ValueError(
                f"'{dimension}' in the shape '{shape}' is no dimension: expected a size, ? for any, "
                "or a range such as 1..512"
            )
    if "..." in dimensions and len(dimensions) > 1:
        raise ValueError(f"'...' in the shape '{shape}' must stand alone: it means any rank")
    return f"[{','.join(dimensions)}]"


def _dimension_text(dimension: Dimension) -> str:
    if dimension is None:
        return "?"
    if isinstance(dimension, tuple):
        low, high = dimension
        return f"{low}..{'' if high is None else high}"
    return str(dimension)


def _as_list(numbers: float | Sequence[float] | None) -> list[float]:
    if numbers is None:
        return []
    # Arrays and numbers of NumPy too, so that a manifest can hold what was given.
    return [float(number) for number in (numbers if isinstance(numbers, Iterable) else [numbers])]


def _finite(what: str, numbers: float | Sequence[float]) -> list[float]:
    values = _as_list(numbers)
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"the {what} must be one finite number or one for each channel")
    return values
