"""Quantization-aware training: int8 weights and activations, simulated while a model is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ovfast.training.checks import check_input, check_model, ignored_scope, require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["prepare_qat"]

_PRESETS = ("performance", "mixed")


def prepare_qat(
    model: nn.Module,
    calibration: Iterable[Any],
    *,
    preset: str = "performance",
    transformer: bool = False,
    ignored: Sequence[str] = (),
    subset_size: int = 300,
    progress: bool = True,
) -> nn.Module:
    """Return a copy of a model that computes as its int8 form will, and that can be trained.

    The quantizers' ranges come from `calibration` and are trained with the weights. Train it with a
    small learning rate, a tenth of the last one or less; `save_checkpoint` and `export_model` take
    what comes out.

    Args:
        model: A trained torch module, in f32. It stays as it is. A model pruned with
            `prepare_pruning` keeps its masks.
        calibration: Inputs of the model without labels: tensors, tuples of positional or dicts of
            named inputs. At most `subset_size` are read.
        preset: "performance": symmetric activations; "mixed": asymmetric ones where values are not
            centred, slightly more accurate.
        transformer: Quantize as fits attention and layer norms.
        ignored: Regular expressions; operations whose name in NNCF's graph matches stay in f32.
        subset_size: Batches to calibrate with.
        progress: Show NNCF's progress on stderr.

    Raises:
        Error: torch, nncf or torchao is missing.
        ValueError: A wrong option, no calibration input, a pattern that matches nothing.
    """
    if preset not in _PRESETS:
        raise ValueError(f"preset must be one of {', '.join(_PRESETS)}, got {preset!r}")
    if subset_size < 1:
        raise ValueError(f"subset_size must be at least 1, got {subset_size}")
    require("torch", "nncf", "torchao")
    check_model(model)
    inputs = list(itertools.islice(calibration, subset_size))
    if not inputs:
        raise ValueError("calibration has no inputs: the ranges of activations come from them")
    for item in inputs:
        check_input(item)

    import nncf

    from ovfast.quantize.nncf_output import nncf_output
    from ovfast.training.fake_quantize import use_torch_operations

    use_torch_operations()
    scope = ignored_scope(ignored)
    try:
        with nncf_output(progress):
            prepared: nn.Module = nncf.quantize(
                model,
                nncf.Dataset(inputs),
                preset=getattr(nncf.QuantizationPreset, preset.upper()),
                # Those of the CPU without VNNI would halve the range of the weights.
                target_device=nncf.TargetDevice.ANY,
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                ignored_scope=scope,
                subset_size=len(inputs),
            )
    except nncf.ValidationError as error:
        raise ValueError(str(error)) from error
    return prepared.train(model.training)
