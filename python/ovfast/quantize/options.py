"""What weight compression can be asked for, and which of it goes together.

The rules are those of NNCF 3.4, asked before a model is loaded and said in this package's words.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["BACKUPS", "METRICS", "MODES", "Mode", "WeightOptions"]


@dataclass(frozen=True)
class Mode:
    """A format of weights."""

    nncf: str
    """Name in `nncf.CompressWeightsMode`."""
    group: int
    """Columns that share a scale unless the option says otherwise; -1: whole rows."""
    fixed_group: bool = False
    backup: str | None = "int8-asym"
    """Of embeddings, lm_head and what is left of `ratio`; None: there is none, all is alike."""
    corrections: bool = True
    """AWQ, scale estimation, GPTQ and LoRA correction know it."""


MODES = {
    "int8-asym": Mode("int8_asym", -1, True, None, False),
    "int8-sym": Mode("int8_sym", -1, True, None, False),
    "int4-asym": Mode("int4_asym", 128),
    "int4-sym": Mode("int4_sym", 128),
    "int3-sym": Mode("int3_sym", 128),
    "int2-sym": Mode("int2_sym", 128),
    "nf4": Mode("nf4", 128),
    "cb4": Mode("cb4", -1),
    "fp4": Mode("fp4", 128, False, "fp8", False),
    "fp8": Mode("fp8_e4m3", 128, False, "fp8", False),
    "mxfp4": Mode("mxfp4", 32, True, "mxfp8", False),
    "mxfp8": Mode("mxfp8_e4m3", 32, True, "mxfp8", False),
    "nvfp4": Mode("nvfp4", 16, True, "int8-asym", False),
}
"""Name -> format. sym: no zero points; asym: a zero point for each scale."""

BACKUPS = {
    "none": "none",
    "int8-asym": "int8_asym",
    "int8-sym": "int8_sym",
    "fp8": "fp8_e4m3",
    "mxfp8": "mxfp8_e4m3",
}
"""Name -> name in `nncf.BackupMode`. none: those weights stay as they are."""

METRICS = {
    "weight-error": "weight_quantization_error",
    "hessian": "hessian_input_activation",
    "mean-variance": "mean_activation_variance",
    "max-variance": "max_activation_variance",
    "mean-magnitude": "mean_activation_magnitude",
}
"""Name -> name in `nncf.SensitivityMetric`."""

_AWQ = ("data", "data-free")
_GPTQ_MODES = ("int4-sym", "int4-asym")
_FALLBACKS = ("adjust", "ignore", "error")
_LEAST_GROUP = 16  # below, scales take as much room as the weights


@dataclass(frozen=True)
class WeightOptions:
    """How weights are compressed. Judged when made: ValueError names option, expected and got."""

    mode: str = "int4-sym"
    """The format of most weights; one of MODES."""
    group_size: int | None = None
    """Columns that share a scale: -1 for whole rows, or at least 16. None: the mode's own."""
    ratio: float | None = None
    """Share of the weights in `mode`, above 0 and up to 1; the most sensitive rest gets `backup`."""
    backup: str | None = None
    """The format of embeddings, lm_head and what is left of `ratio`; one of BACKUPS."""
    all_layers: bool = False
    """Embeddings and lm_head in `mode`, too."""
    sensitivity: str | None = None
    """How layers are ranked for `ratio`; one of METRICS. All but weight-error need data."""
    ignored: tuple[str, ...] = ()
    """Regular expressions; layers whose whole name matches one stay as they are."""
    awq: str | None = None
    """Scale columns that large activations meet: "data", or "data-free" from weights alone."""
    scale_estimation: bool = False
    """Choose scales for the least error of the layers' outputs. Needs data."""
    gptq: bool = False
    """Round column after column, the rest making up for the error. Needs data."""
    lora_correction: bool = False
    """Add low-rank matrices in 8 bits that make up for the error. Needs data."""
    lora_rank: int | None = None
    """Their rank; 8 unless given."""
    group_fallback: str | None = None
    """For layers whose columns the group does not divide: "adjust" takes the largest power of two
    that does (from 32 on; else they get `backup`), "ignore" leaves them as they are, "error"
    refuses. None: adjust, but ignore where a mode has one group only."""
    data: str | None = None
    """Calibration texts: a text file, a folder, a JSONL file; None: documentation and sources that
    come with Python. Only read where something needs data."""
    samples: int | None = None
    """Calibration texts that are used; 64 unless given."""
    sample_tokens: int | None = None
    """Tokens of each; 64 unless given."""

    def __post_init__(self) -> None:
        """Judge."""
        _check_choices(self)
        _check_numbers(self)
        _check_format(self)
        _check_corrections(self)
        _check_data(self)

    @property
    def needs_data(self) -> bool:
        """Whether texts have to go through the model."""
        ranked = self.sensitivity not in (None, "weight-error")
        corrected = self.scale_estimation or self.gptq or self.lora_correction
        return self.awq == "data" or corrected or ranked

    @property
    def group(self) -> int:
        """Columns that share a scale; -1: whole rows."""
        return MODES[self.mode].group if self.group_size is None else self.group_size

    @property
    def fallback(self) -> str:
        """What holds for `group_fallback`."""
        return self.group_fallback or ("ignore" if MODES[self.mode].fixed_group else "adjust")

    def replaced(self, **changes: Any) -> WeightOptions:
        """Return these with others in their place. TypeError for an unknown name."""
        known = [field.name for field in fields(self)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise TypeError(
                f"unknown option {unknown[0]!r} of weight compression; known are {', '.join(known)}"
            )
        return dataclasses.replace(self, **changes)

    def given(self) -> dict[str, Any]:
        """Return those that are not the default, and the mode; ready for JSON."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.name == "mode"
        }


def _refuse(option: str, expected: str, got: object) -> ValueError:
    return ValueError(f"{option}: expected {expected}, got {got!r}")


def _check_choices(options: WeightOptions) -> None:
    choices = {
        "mode": tuple(MODES),
        "backup": (None, *BACKUPS),
        "sensitivity": (None, *METRICS),
        "awq": (None, *_AWQ),
        "group_fallback": (None, *_FALLBACKS),
    }
    for name, known in choices.items():
        value = getattr(options, name)
        if value not in known:
            shown = ", ".join(item for item in known if item is not None)
            raise _refuse(name, f"one of {shown}", value)
    for name in ("all_layers", "scale_estimation", "gptq", "lora_correction"):
        if not isinstance(getattr(options, name), bool):
            raise _refuse(name, "True or False", getattr(options, name))


def _check_numbers(options: WeightOptions) -> None:
    def whole(name: str, least: int) -> None:
        value = getattr(options, name)
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if value is not None and not good:
            raise _refuse(name, f"a whole number of at least {least}", value)

    for name, least in (("lora_rank", 1), ("samples", 1), ("sample_tokens", 2)):
        whole(name, least)
    if options.group_size != -1:
        try:
            whole("group_size", _LEAST_GROUP)
        except ValueError:
            expected = f"-1 (whole rows) or a whole number of at least {_LEAST_GROUP}"
            raise _refuse("group_size", expected, options.group_size) from None
    ratio = options.ratio
    if ratio is not None:
        number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
        if not number or not 0 < ratio <= 1:
            raise _refuse("ratio", "a number above 0 and up to 1", ratio)
    if not isinstance(options.ignored, tuple):
        raise _refuse("ignored", "a tuple of regular expressions", options.ignored)
    for pattern in options.ignored:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"ignored: {pattern!r} is no regular expression: {error}") from None


def _check_format(options: WeightOptions) -> None:
    mode, name = MODES[options.mode], options.mode
    if mode.fixed_group and options.group_size not in (None, mode.group):
        expected = "whole rows (-1)" if mode.group == -1 else str(mode.group)
        raise _refuse("group_size", f"{expected}, the only group of {name}", options.group_size)
    if mode.backup is None:
        for option in ("ratio", "backup", "all_layers", "sensitivity", "group_fallback"):
            value = getattr(options, option)
            if value and not (option == "ratio" and value == 1):
                raise _refuse(option, f"nothing with {name}, which compresses all alike", value)
        return
    if options.group == -1 and options.group_fallback is not None:
        raise _refuse("group_fallback", "nothing with whole rows", options.group_fallback)
    if mode.fixed_group and options.group_fallback == "adjust":
        raise _refuse("group_fallback", f"ignore or error with {name}", "adjust")
    if options.sensitivity is not None and options.ratio in (None, 1):
        raise _refuse("ratio", "below 1, since sensitivity ranks for it", options.ratio)


def _check_corrections(options: WeightOptions) -> None:
    wanted = {
        "awq": options.awq,
        "scale_estimation": options.scale_estimation,
        "gptq": options.gptq,
        "lora_correction": options.lora_correction,
    }
    if not MODES[options.mode].corrections:
        known = ", ".join(name for name, mode in MODES.items() if mode.corrections)
        for name, value in wanted.items():
            if value:
                expected = f"nothing with {options.mode} (only with {known})"
                raise _refuse(name, expected, value)
    if options.gptq and options.mode not in _GPTQ_MODES:
        raise _refuse("gptq", f"nothing with {options.mode} (only with int4-sym, int4-asym)", True)
    if options.gptq and options.awq:
        raise _refuse("awq", "nothing with gptq: one of the two", options.awq)
    if options.gptq and options.lora_correction:
        raise _refuse("lora_correction", "nothing with gptq: one of the two", True)
    if options.lora_rank is not None and not options.lora_correction:
        raise _refuse("lora_rank", "nothing without lora_correction", options.lora_rank)


def _check_data(options: WeightOptions) -> None:
    if not options.needs_data:
        for name in ("data", "samples", "sample_tokens"):
            value = getattr(options, name)
            if value is not None:
                expected = (
                    "nothing where no option needs data (awq=data, scale_estimation, gptq, "
                    "lora_correction, sensitivity)"
                )
                raise _refuse(name, expected, value)
        return
    if options.data is not None and not Path(options.data).exists():
        raise _refuse("data", "a text file, a folder or a JSONL file", options.data)
