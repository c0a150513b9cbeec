"""Smaller and faster models: weight compression, recipes for it, and a search among them.

    import ovfast

    ovfast.quantize("model-dir", "model-int4", recipe="int4-asym-data")

docs/quantization.md is the guide.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovfast.evaluate.options import Thresholds

__all__ = ["QuantizeResult", "quantize"]

# NNCF reports its use over the network, except where this is set.
os.environ.setdefault("NNCF_CI", "1")


@dataclass(frozen=True)
class QuantizeResult:
    """What a quantization did."""

    model_dir: Path
    source: Path
    recipe: str
    reused: bool
    """The directory held this very result already, and nothing was written."""
    seconds: float
    weights_bytes: int
    """Size of openvino_model.bin."""
    source_bytes: int
    """The same of the source."""
    packed: bool
    """It runs on ovfast's operations on packed weights, which other programs lack."""
    layers: dict[str, int]
    """Format -> layers in it, as "int4 group 128": 168."""
    notes: list[str] = field(default_factory=list)
    """What a person should know: groups that did not fit, little calibration text."""
    quality: dict[str, Any] | None = None
    """What a proof found, see `ovfast.evaluate.prove`."""


def quantize(
    model_dir: str | Path,
    out_dir: str | Path,
    recipe: str = "int4-g128",
    *,
    packed: bool = True,
    force: bool = False,
    progress: bool = True,
    prove: Thresholds | Mapping[str, float | None] | bool | None = None,
    **options: Any,
) -> QuantizeResult:
    """Write a model directory with compressed weights.

    The result appears whole or not at all. When `out_dir` holds this very result already, nothing is
    done.

    Args:
        model_dir: A model directory, stock or packed, best one with f16 weights.
        out_dir: The directory to write; another one.
        recipe: A name of `ovfast.quantize.recipes.RECIPES`.
        packed: Pack the weights for ovfast where their format packs. Otherwise the directory holds
            OpenVINO's own operations.
        force: Quantize a model that is quantized already, from what its weights have become, and
            replace another model in `out_dir`.
        progress: Show NNCF's table and progress bars on stderr.
        prove: Compare the result with the source by `ovfast.evaluate.prove`, with these thresholds
            (True: none), and write what was found into the manifest. Nothing is written when one is
            missed.
        **options: Those of `ovfast.quantize.options.WeightOptions` in place of the recipe's; for
            recipes of kind "ptq" those of `ovfast.quantize.ptq_options.ActivationOptions`.

    Raises:
        ValueError, TypeError: Options that are unknown, out of range or do not go together, before
            the model is loaded; a group that divides no layer's columns; calibration text that is
            missing or too short; `out_dir` holds something else; a quantized model without `force`.
        ModelError: The source cannot be used: damaged, NaN in a weight, a graph NNCF knows nothing
            of.
        Error: The result could not be written, a threshold was missed, or an extra is missing.
    """
    from ovfast.quantize.recipes import find_recipe

    chosen = find_recipe(recipe)
    prove = _judged(prove)
    model_dir, out_dir = Path(model_dir).expanduser(), Path(out_dir).expanduser()
    if chosen.kind == "ptq":
        from ovfast.quantize.ptq import quantize_activations

        if prove is not None:
            options["prove"] = prove
        return quantize_activations(
            model_dir, out_dir, packed=packed, force=force, progress=progress, **options
        )
    from ovfast.quantize.directory import quantize_directory

    return quantize_directory(
        model_dir,
        out_dir,
        recipe,
        chosen.with_options(options),
        packed=packed,
        force=force,
        progress=progress,
        prove=prove,
    )


def _judged(
    prove: Thresholds | Mapping[str, float | None] | bool | None,
) -> Thresholds | None:
    """The thresholds of a proof, if one is wanted, before minutes are spent on the model."""
    from ovfast.evaluate.options import Thresholds

    if prove is None or prove is False:
        return None
    if prove is True:
        return Thresholds()
    if isinstance(prove, Thresholds):
        return prove
    if not isinstance(prove, Mapping):
        raise TypeError(
            f"prove: expected Thresholds, a mapping or bool, got {type(prove).__name__}"
        )
    return Thresholds(**prove)


class _CallableModule(types.ModuleType):
    """`ovfast.quantize` is the function and this package: whoever imports a part of it sets the name.

    So the package can be called, too.
    """

    def __call__(self, *arguments: Any, **options: Any) -> QuantizeResult:
        return quantize(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
