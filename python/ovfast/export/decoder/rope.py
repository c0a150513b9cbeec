"""Frequencies of rotary position embeddings, computed as transformers computes them (f32)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import ModelError

__all__ = ["Rope", "read_rope"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Rope:
    """The rotation of a layer's heads: channel i with i + dims / 2, by position * inv_freq[i]."""

    inv_freq: Floats
    """[dims / 2]"""
    factor: float
    """By which cosines and sines are multiplied."""
    context: int
    """Tokens for which these frequencies hold."""

    @property
    def dims(self) -> int:
        """Channels of a head that turn; those behind them stay."""
        return 2 * len(self.inv_freq)


def read_rope(parameters: Mapping[str, Any], head_size: int, context: int, where: str) -> Rope:
    """Compute the frequencies of `rope_parameters` in transformers' standard spelling.

    Args:
        parameters: The dictionary of one kind of layer.
        head_size: Channels of a head.
        context: max_position_embeddings.
        where: What to call the file in messages.

    Raises ModelError for kinds that are not supported and for values that make no sense.
    """
    kind = parameters.get("rope_type", "default")
    if kind not in _KINDS:
        raise ModelError(
            f"'{where}': expected 'rope_type' {', '.join(_KINDS)} in 'rope_scaling' or "
            f"'rope_parameters', got {kind!r}; Optimum Intel (--via optimum) knows more"
        )
    dims = int(head_size * parameters.get("partial_rotary_factor", 1.0))
    try:
        base = float(parameters["rope_theta"])
        powers = np.float32(base) ** (np.arange(0, dims, 2, dtype=np.float32) / np.float32(dims))
        inv_freq, factor, limit = _KINDS[kind](np.float32(1) / powers, parameters, context)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"'{where}': the rotary embedding of type {kind!r} is not described well: {error!r}"
        ) from error
    inv_freq = inv_freq.astype(np.float32)
    if dims < 2 or dims % 2 or inv_freq.shape != (dims // 2,) or not np.all(np.isfinite(inv_freq)):
        raise ModelError(
            f"'{where}': the rotary embedding of type {kind!r} gives no {dims} / 2 frequencies"
        )
    return Rope(inv_freq, factor, limit)


Result = tuple[Floats, float, int]


def _default(inv_freq: Floats, parameters: Mapping[str, Any], context: int) -> Result:
    return inv_freq, 1.0, context


def _linear(inv_freq: Floats, parameters: Mapping[str, Any], context: int) -> Result:
    return inv_freq / np.float32(parameters["factor"]), 1.0, context


def _llama3(inv_freq: Floats, parameters: Mapping[str, Any], context: int) -> Result:
    """Long waves slower by a factor, short ones as they are, a ramp between (Llama 3.1)."""
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    old = parameters["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inv_freq
    smooth = (old / wavelength - low) / (high - low)
    ramp = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    result = np.where(wavelength > old / low, inv_freq / factor, ramp)
    return np.where(wavelength < old / high, inv_freq, result), 1.0, context


def _yarn(inv_freq: Floats, parameters: Mapping[str, Any], context: int) -> Result:
    """YaRN, arXiv 2309.00071."""
    old = parameters["original_max_position_embeddings"]
    factor = parameters.get("factor") or context / old
    dims, base = 2 * len(inv_freq), parameters["rope_theta"]

    def dimension(rotations: float) -> float:
        return dims * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(base))

    first = dimension(parameters.get("beta_fast") or 32)
    last = dimension(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    if first == last:
        last += 0.001
    ramp = np.clip((np.arange(len(inv_freq), dtype=np.float32) - first) / (last - first), 0, 1)
    frequencies = inv_freq / factor * ramp + inv_freq * (1 - ramp)

    def magnitude(scale: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    given = parameters.get("attention_factor")
    own, of_all = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if given is None:
        given = magnitude(own) / magnitude(of_all) if own and of_all else magnitude()
    return frequencies, float(given), context


def _longrope(inv_freq: Floats, parameters: Mapping[str, Any], context: int) -> Result:
    """LongRoPE, arXiv 2402.13753: the short factors, with which the context ends where they do.

    The original uses other frequencies for all tokens as soon as there is one beyond that, which
    the keys in a KV cache cannot follow.
    """
    old = int(parameters["original_max_position_embeddings"])
    factor = parameters.get("factor") or context / old
    given = parameters.get("attention_factor")
    if given is None:
        given = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(old))
    short = np.asarray(parameters["short_factor"], np.float32)
    return inv_freq / short, float(given), min(context, old)


_KINDS = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
