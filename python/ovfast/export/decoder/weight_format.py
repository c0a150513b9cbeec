"""How a matrix is stored, and rounding to it.

The spelling is NNCF's, so that whatever knows its models knows these: u8 or u4 codes with a zero
point for each scale, or signed i8 and i4; f16 scales for each row or for each group of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ovfast.errors import ModelError

__all__ = ["CHOICES", "Codes", "WeightFormat", "fit_group", "formats", "round_rows"]

CHOICES = ("int4", "int4-asym", "int8", "int8-sym", "f16")

_SMALLEST_GROUP, _USUAL_GROUP = 32, 128  # columns
_LARGEST_F16 = 65504.0


@dataclass(frozen=True)
class WeightFormat:
    """Bits of a number, and how numbers are grouped."""

    bits: int
    """4 or 8: rounded to integers; 16 and 32: floats."""
    asymmetric: bool = False
    group: int = 0
    """Columns that share a scale; 0: all of a row."""

    @property
    def quantized(self) -> bool:
        """Whether there are scales."""
        return self.bits < 16

    @property
    def type(self) -> str:
        """OpenVINO's name of the values' type."""
        if not self.quantized:
            return f"f{self.bits}"
        return f"{'u' if self.asymmetric else 'i'}{self.bits}"

    @property
    def text(self) -> str:
        """For people."""
        if not self.quantized:
            return self.type
        kind = "asymmetric" if self.asymmetric else "symmetric"
        shared = f"{self.group} columns" if self.group else "row"
        return f"int{self.bits} {kind} with a scale per {shared}"

    def shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Of the values of a matrix: [rows, columns], or [rows, groups, group]."""
        if not self.group:
            return rows, columns
        return rows, columns // self.group, self.group

    def scale_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Of scales and zero points: that of the values, with one column."""
        return *self.shape(rows, columns)[:-1], 1


def formats(weights: str, group_size: int | None) -> tuple[WeightFormat, WeightFormat]:
    """The formats of linear layers, and of embedding and lm_head.

    The latter are 8-bit where layers are 4-bit, as in Optimum Intel's exports: they lose more.
    Raises ValueError for an unknown name, and a group that cannot be or is of no use.
    """
    if weights not in CHOICES:
        raise ValueError(f"weights must be one of {', '.join(CHOICES)}, got {weights!r}")
    if group_size is None:
        group_size = _USUAL_GROUP
    elif not weights.startswith("int4"):
        raise ValueError(f"group_size is for int4 weights, got {group_size} for {weights}")
    if group_size < _SMALLEST_GROUP or group_size & (group_size - 1):
        raise ValueError(
            f"group_size must be a power of two of at least {_SMALLEST_GROUP}, got {group_size}"
        )
    if weights == "f16":
        return WeightFormat(16), WeightFormat(16)
    rows = WeightFormat(8, asymmetric=weights != "int8-sym")
    if weights.startswith("int8"):
        return rows, rows
    return WeightFormat(4, weights.endswith("asym"), group_size), rows


def fit_group(form: WeightFormat, columns: int) -> WeightFormat:
    """The format with the largest group that divides a row; 8 bits per row where none does."""
    if not form.group or columns % form.group == 0:
        return form
    group = form.group
    while group > _SMALLEST_GROUP and columns % group:
        group //= 2
    if columns % group:
        return WeightFormat(8, asymmetric=True)
    return replace(form, group=group)


@dataclass(frozen=True)
class Codes:
    """Rows of a matrix, each array as it lies in the file."""

    values: npt.NDArray[np.generic]
    scales: npt.NDArray[np.float16] | None = None
    zero_points: npt.NDArray[np.uint8] | None = None


def round_rows(rows: npt.NDArray[np.float32], form: WeightFormat, name: str) -> Codes:
    """Round f32 [rows, columns] to a format, to nearest.

    Raises ModelError, naming the tensor, for NaN, infinity and what f16 cannot hold.
    """
    if form.bits == 32:
        _require(bool(np.isfinite(rows).all()), name)
        return Codes(rows)
    if form.bits == 16:
        with np.errstate(over="ignore"):
            halves = rows.astype(np.float16)
        _require(bool(np.isfinite(halves).all()), name)
        return Codes(halves)
    grouped = rows.reshape(form.shape(*rows.shape))
    low = grouped.min(axis=-1, keepdims=True)
    high = grouped.max(axis=-1, keepdims=True)
    _require(bool(np.isfinite(low).all() and np.isfinite(high).all()), name)
    levels = 1 << form.bits
    if form.asymmetric:
        # Zero is a level, so that weights that are 0 stay 0.
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        wide = (high - low) / (levels - 1)
    else:
        # The number farthest from 0 becomes -8 or -128, the one more step that codes have there:
        # the scale has the opposite sign (NNCF does the same).
        farthest = np.where(-low >= high, -low, -high)
        wide = farthest / (levels // 2)
    with np.errstate(over="ignore"):
        scales = wide.astype(np.float16)
    _require(bool(np.isfinite(scales).all()), name)
    # Codes belong to the scale that is stored. Where that is 0 all numbers are, to f16.
    used = scales.astype(np.float32)
    inverse = np.divide(1, used, out=np.zeros_like(used), where=used != 0)
    codes = grouped * inverse
    zeros: npt.NDArray[np.uint8] | None = None
    smallest = -levels // 2
    if form.asymmetric:
        smallest = 0
        zero_points = np.clip(np.rint(-low * inverse), 0, levels - 1)
        codes += zero_points
        zeros = zero_points.astype(np.uint8)
    np.rint(codes, out=codes)
    np.clip(codes, smallest, smallest + levels - 1, out=codes)
    integers = codes.astype(np.int16).astype(np.uint8)
    if form.bits == 8:
        return Codes(integers, scales, zeros)
    return Codes(_nibbles(integers), scales, None if zeros is None else _nibbles(zeros))


def _nibbles(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two codes a byte, the first in the low half, as OpenVINO stores u4 and i4."""
    flat = codes.reshape(-1)
    pairs = np.pad(flat, (0, flat.size % 2)).reshape(-1, 2)
    low, high = pairs[:, 0] & np.uint8(15), pairs[:, 1] << np.uint8(4)
    packed: npt.NDArray[np.uint8] = np.bitwise_or(low, high)
    return packed


def _require(finite: bool, name: str) -> None:
    if not finite:
        raise ModelError(
            f"the tensor '{name}' holds NaN, infinity or numbers beyond what f16 holds "
            f"({_LARGEST_F16:.0f}): the model is damaged"
        )
