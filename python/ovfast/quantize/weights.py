"""Weight compression by NNCF of a graph in memory."""

from __future__ import annotations

from typing import Any

from ovfast.errors import ModelError
from ovfast.progress import Bar
from ovfast.quantize.calibration import Calibration
from ovfast.quantize.calibration_graph import close_after_calibration, open_for_calibration
from ovfast.quantize.check import check_finite, find_ignored, find_odd_layers
from ovfast.quantize.expand import weights_of
from ovfast.quantize.gptq import improve_codes
from ovfast.quantize.nncf_output import nncf_output
from ovfast.quantize.options import BACKUPS, METRICS, MODES, WeightOptions

__all__ = ["compress"]

_LORA_RANK = 8
# Exponents that AWQ tries; NNCF's own 100 take minutes for 24 layers.
_AWQ_STEPS = 20


def compress(
    model: Any, options: WeightOptions, calibration: Calibration | None, *, progress: bool
) -> tuple[Any, list[str]]:
    """Compress the weights of an `openvino.Model` with f16, bf16 or f32 weights.

    Args:
        model: Changed in place, and not to be used afterwards.
        options: What to do.
        calibration: Texts for what needs data.
        progress: Show NNCF's table of bit widths and its progress bars on stderr.

    Returns the compressed model, and notes about layers that get another treatment.

    Raises:
        ValueError: The group divides the columns of no layer; a pattern matches no layer.
        ModelError: NaN or infinity in a weight; a graph that NNCF cannot work with.
    """
    import nncf

    weights = weights_of(model)
    if not weights:
        raise ModelError("the model has no layers with constant weights to compress")
    ignored = find_ignored(weights, options.ignored)
    notes = find_odd_layers(weights, options, ignored)
    check_finite(weights)
    dataset = None
    samples: list[dict[str, Any]] = []
    if calibration is not None:
        open_for_calibration(model)
        samples = calibration.inputs({port.get_any_name() for port in model.inputs})
        if options.replaced(gptq=False, data=None, samples=None, sample_tokens=None).needs_data:
            dataset = nncf.Dataset(samples)
    original = model.clone() if options.gptq else None  # the weights themselves are shared
    try:
        with nncf_output(progress):
            compressed = nncf.compress_weights(
                model, dataset=dataset, **_arguments(options, calibration, ignored)
            )
    except (nncf.UnsupportedModelError, nncf.ValidationError, nncf.InvalidGroupSizeError) as error:
        raise ModelError(f"NNCF cannot compress this model: {error}") from error
    if original is not None:
        with Bar("GPTQ", progress) as bar:
            improve_codes(compressed, original, samples, bar.show)
    if calibration is not None:
        close_after_calibration(compressed)
    return compressed, notes


def _arguments(
    options: WeightOptions, calibration: Calibration | None, ignored: list[str]
) -> dict[str, Any]:
    import nncf

    mode = MODES[options.mode]
    arguments: dict[str, Any] = {"mode": nncf.CompressWeightsMode(mode.nncf)}
    if ignored:
        arguments["ignored_scope"] = nncf.IgnoredScope(names=ignored)
    if mode.backup is None:
        return arguments
    samples = len(calibration.texts) if calibration is not None else 1
    correction = nncf.quantization.advanced_parameters
    advanced = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode(options.fallback),
        awq_params=correction.AdvancedAWQParameters(
            subset_size=samples,
            steps=_AWQ_STEPS,
            prefer_data_aware_scaling=options.awq == "data",
        ),
        scale_estimation_params=correction.AdvancedScaleEstimationParameters(subset_size=samples),
        lora_correction_params=correction.AdvancedLoraCorrectionParameters(
            adapter_rank=options.lora_rank or _LORA_RANK, subset_size=samples
        ),
    )
    return {
        **arguments,
        "ratio": options.ratio or 1.0,
        "group_size": options.group,
        "all_layers": options.all_layers,
        "backup_mode": nncf.BackupMode(BACKUPS[options.backup]) if options.backup else None,
        "sensitivity_metric": (
            nncf.SensitivityMetric(METRICS[options.sensitivity]) if options.sensitivity else None
        ),
        "awq": options.awq is not None,
        "scale_estimation": options.scale_estimation,
        "lora_correction": options.lora_correction,
        "subset_size": samples,
        "advanced_parameters": advanced,
    }
