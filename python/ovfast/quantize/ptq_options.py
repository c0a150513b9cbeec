"""What post-training quantization can be asked for, and which of it goes together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ovfast.convert.input_options import Input

__all__ = ["DEVICES", "ENTRY_POINT", "LEAST_ROWS", "PRESETS", "TOP1", "ActivationOptions"]

PRESETS = ("performance", "mixed")
"""performance: activations without zero points; mixed: with them, which costs a little speed."""

DEVICES = {"any": "ANY", "cpu": "CPU", "gpu": "GPU", "npu": "NPU", "cpu-spr": "CPU_SPR"}
"""Name -> name in `nncf.TargetDevice`. cpu-spr: the first Xeons with AMX."""

TOP1 = "top1"
"""The ready metric: share of rows whose largest output is at their label."""

ENTRY_POINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""How a Python function is named: `package.module:function`."""

LEAST_ROWS = 8
"""With less calibration data ranges are a matter of luck."""

_MODEL_TYPES = ("transformer", "other")
_DROPS = ("absolute", "relative")
_IMAGE = ("image_mean", "image_scale", "image_size", "image_bgr", "image_layout")


@dataclass(frozen=True)
class ActivationOptions:
    """How weights and activations are quantized. ValueError names option, expected and got."""

    data: str | Path | Iterable[Any] | None = None
    """What to calibrate with: a .npz or .npy file, a folder of those or of images, for language
    models texts as everywhere (None: those that come with Python), `module:function` that yields
    inputs, or the inputs themselves, such as `ovfast.quantize.capture.capture` gives them."""
    samples: int | None = None
    """Inferences that are used; 300, for texts 32, unless given."""
    sample_tokens: int | None = None
    """Tokens of each text; 256 unless given."""
    preset: str | None = None
    """One of PRESETS; None: mixed for transformers, else performance."""
    model_type: str | None = None
    """transformer, or other; None: transformer for language models."""
    target_device: str = "any"
    """One of DEVICES."""
    smooth_quant: float | None = None
    """From 0 to 1: how much of large activations is moved into the weights; -1: none. For
    transformers only; None: 0.95."""
    ignored: tuple[str, ...] = ()
    """Regular expressions; operations whose whole name matches one stay as they are."""
    fast_bias_correction: bool = True
    """False: a slower correction, more exact as a rule."""
    validation: str | Path | Iterable[Any] | None = None
    """Labelled data to measure with: a .npz with "labels", or `module:function` that yields what
    the metric understands, or that itself."""
    metric: str | Callable[[Any, Any], float] | None = None
    """"top1", or `module:function`, or a function (compiled_model, data) -> float, more is better;
    data is what `validation` yields. None: top1 where there is a validation."""
    max_drop: float | None = None
    """How much of the metric may be lost. Layers go back to floats until it holds."""
    drop_type: str | None = None
    """absolute, or relative to the metric of the source; absolute unless given."""
    image_mean: float | tuple[float, ...] | None = None
    """Subtracted from pixels (0 to 255), one number or one a channel, where the model itself does
    not."""
    image_scale: float | tuple[float, ...] | None = None
    """Divides them then."""
    image_size: tuple[int, int] | None = None
    """(height, width) of images for models that take any."""
    image_bgr: bool = False
    """The model wants blue first."""
    image_layout: str | None = None
    """The model's dimensions, such as NCHW; None: as the model says, or its shape shows."""
    compare: bool = True
    """Measure size, time and error beside the source."""

    def __post_init__(self) -> None:
        """Judge."""
        self._check_choices()
        self._check_numbers()
        self._check_ignored()
        self._check_accuracy()
        self._check_sources()
        self._check_images()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ActivationOptions:
        """Make them of names and values. Raises TypeError for an unknown name, and ValueError."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise TypeError(
                f"unknown option {unknown[0]!r} of activation quantization; known are "
                f"{', '.join(known)}"
            )
        return cls(**given)

    @property
    def has_image_options(self) -> bool:
        """Whether something is said about images."""
        return any(getattr(self, name) not in (None, False) for name in _IMAGE)

    def check_for(self, *, language_model: bool) -> None:
        """Judge once it is known what the model is, before it is loaded."""
        if language_model:
            if self.has_image_options:
                name = next(name for name in _IMAGE if getattr(self, name))
                raise _refuse(name, "nothing for a language model", getattr(self, name))
            return
        if self.sample_tokens is not None:
            raise _refuse("sample_tokens", "nothing: this is no language model", self.sample_tokens)
        if self.smooth_quant is not None and self.model_type != "transformer":
            raise _refuse(
                "smooth_quant", "nothing without model_type=transformer", self.smooth_quant
            )
        if self.data is None:
            raise _refuse(
                "data", "inputs to calibrate with: .npz, .npy, a folder, module:function", None
            )

    def given(self) -> dict[str, Any]:
        """Return those that are not the default, ready for JSON."""
        return {
            field.name: _as_json(value, is_path=field.name in ("data", "validation"))
            for field in fields(self)
            if (value := getattr(self, field.name)) is not field.default and value != field.default
        }

    def _check_choices(self) -> None:
        choices: dict[str, tuple[str | None, ...]] = {
            "preset": (None, *PRESETS),
            "model_type": (None, *_MODEL_TYPES),
            "target_device": tuple(DEVICES),
            "drop_type": (None, *_DROPS),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                shown = ", ".join(item for item in known if item is not None)
                raise _refuse(name, f"one of {shown}", value)
        for name in ("fast_bias_correction", "image_bgr", "compare"):
            if not isinstance(getattr(self, name), bool):
                raise _refuse(name, "True or False", getattr(self, name))

    def _check_numbers(self) -> None:
        for name, least in (("samples", 1), ("sample_tokens", 2)):
            value = getattr(self, name)
            good = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if value is not None and not good:
                raise _refuse(name, f"a whole number of at least {least}", value)
        alpha = self.smooth_quant
        if alpha is not None:
            if not _is_number(alpha) or not (alpha == -1 or 0 <= alpha <= 1):
                raise _refuse("smooth_quant", "a number from 0 to 1, or -1 for none", alpha)
            if self.model_type == "other":
                raise _refuse("smooth_quant", "nothing with model_type=other", alpha)

    def _check_ignored(self) -> None:
        if not isinstance(self.ignored, tuple):
            raise _refuse("ignored", "a tuple of regular expressions", self.ignored)
        for pattern in self.ignored:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(
                    f"ignored: {pattern!r} is no regular expression: {error}"
                ) from None

    def _check_accuracy(self) -> None:
        drop = self.max_drop
        if drop is not None and (not _is_number(drop) or not 0 <= drop < math.inf):
            raise _refuse("max_drop", "a number of at least 0", drop)
        if self.drop_type == "relative" and drop is not None and drop >= 1:
            raise _refuse("max_drop", "below 1 where it is relative", drop)
        if self.drop_type is not None and drop is None:
            raise _refuse("drop_type", "nothing without max_drop", self.drop_type)
        for name in ("metric", "max_drop"):
            if getattr(self, name) is not None and self.validation is None:
                raise _refuse("validation", f"data, since {name} is given", None)
        if isinstance(self.metric, str):
            if self.metric != TOP1 and not ENTRY_POINT.fullmatch(self.metric):
                raise _refuse("metric", f"{TOP1} or module:function", self.metric)
        elif self.metric is not None and not callable(self.metric):
            raise _refuse("metric", f"{TOP1}, module:function or a function", self.metric)

    def _check_sources(self) -> None:
        for name in ("data", "validation"):
            value = getattr(self, name)
            if value is None or not isinstance(value, (str, Path)):
                if value is not None and not isinstance(value, Iterable):
                    raise _refuse(name, "a path, module:function or inputs", value)
            elif not Path(value).exists() and not ENTRY_POINT.fullmatch(str(value)):
                raise _refuse(name, "a file or folder that exists, or module:function", str(value))

    def _check_images(self) -> None:
        size = self.image_size
        if size is not None and (
            len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size)
        ):
            raise _refuse("image_size", "two whole numbers, height and width", size)
        if self.image_layout is not None and sorted(self.image_layout) != sorted("NCHW"):
            raise _refuse("image_layout", "N, C, H and W in some order", self.image_layout)
        try:
            Input(layout="NCHW", mean=self.image_mean, scale=self.image_scale)
        except ValueError as error:
            raise ValueError(f"image_mean, image_scale: {error}") from None


def _refuse(option: str, expected: str, got: object) -> ValueError:
    return ValueError(f"{option}: expected {expected}, got {got!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_json(value: Any, *, is_path: bool) -> Any:
    if is_path and isinstance(value, (str, Path)):
        return Path(value).name  # where it lay says nothing elsewhere
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, tuple) and not is_path:
        return list(value)
    return getattr(value, "__qualname__", type(value).__name__)
