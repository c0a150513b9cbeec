"""Sampling options: what the caller says over what the model's generation_config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovfast import _core

__all__ = ["sampling_params"]

# Options of generation_config.json that we know under the same name.
_SHARED = ("max_new_tokens", "max_length", "min_new_tokens", "repetition_penalty")
_SHAPING = ("temperature", "top_k", "top_p", "min_p")  # meaningless when greedy
_LENGTHS = ("max_new_tokens", "max_length")


def sampling_params(
    generation_config: Mapping[str, Any],
    options: Mapping[str, Any],
    file: str | Path = "generation_config.json",
) -> _core.SamplingParams:
    """Merge a model's defaults and a caller's options; the caller wins.

    A default that contradicts an explicit option is dropped: ``temperature=0`` drops the model's
    top-k, ``max_new_tokens`` its ``max_length`` and a larger ``min_new_tokens``.

    Args:
        generation_config: Contents of generation_config.json, Hugging Face's names.
        options: Attributes of SamplingParams. None values count as not given.
        file: Where the defaults come from, for error messages.

    Raises:
        ModelError: The defaults cannot be used, whatever the caller says.
        TypeError: An unknown option or one of the wrong type.
        ValueError: An option out of range, or options that contradict each other.
    """
    explicit = {name: value for name, value in options.items() if value is not None}
    defaults = _defaults(generation_config)
    try:
        _core.SamplingParams(**defaults).validate()
    except (TypeError, ValueError) as error:
        raise _core.ModelError(
            f"'{file}' cannot be used: {error}. Correct or remove it."
        ) from error
    if any(name in explicit for name in _LENGTHS):
        for name in _LENGTHS:
            defaults.pop(name, None)
        # Out-of-range and wrong types are left to SamplingParams, which names them.
        minimum = defaults.get("min_new_tokens", 0)
        given = [explicit[name] for name in _LENGTHS if name in explicit]
        if any(isinstance(length, int) and minimum >= length for length in given):
            defaults.pop("min_new_tokens", None)
    if explicit.get("temperature") == 0:
        for name in _SHAPING:
            defaults.pop(name, None)
    if isinstance(explicit.get("stop_strings"), str):
        explicit["stop_strings"] = [explicit["stop_strings"]]
    params = _core.SamplingParams(**{**defaults, **explicit})
    params.validate()
    return params


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {name: config[name] for name in _SHARED if config.get(name) is not None}
    if "max_new_tokens" in defaults:  # as in Hugging Face's own libraries
        defaults.pop("max_length", None)
    if config.get("do_sample"):
        defaults["temperature"] = config.get("temperature") or 1.0
        for name in ("top_k", "top_p", "min_p"):
            if config.get(name) is not None:
                defaults[name] = config[name]
    return defaults
