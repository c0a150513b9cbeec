"""Post-training quantization: weights and activations in 8 bits, with ranges seen in real inputs."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovfast.errors import Error, ModelError
from ovfast.model_dir import ModelDir
from ovfast.quantize import QuantizeResult
from ovfast.quantize.accuracy import Metric, read_metric
from ovfast.quantize.calibration import Calibration, read_calibration
from ovfast.quantize.calibration_graph import close_after_calibration, open_for_calibration
from ovfast.quantize.capture import RESET_STATE
from ovfast.quantize.check import check_finite
from ovfast.quantize.expand import Weight
from ovfast.quantize.nncf_output import nncf_output
from ovfast.quantize.options import WeightOptions
from ovfast.quantize.ptq_options import DEVICES, LEAST_ROWS, ActivationOptions
from ovfast.quantize.samples import read_samples, rows

if TYPE_CHECKING:
    from ovfast.evaluate.options import Thresholds

__all__ = [
    "RECIPE",
    "WEIGHTED",
    "Inputs",
    "checked_inputs",
    "quantize_activations",
    "quantize_graph",
    "quantize_language_model",
    "read_inputs",
    "remove_fakes",
]

RECIPE = "ptq-int8"
SAMPLES = 300
_FEW_ROWS = 100
WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "Gather")
"""Types of operations that have weights."""
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Inputs:
    """Inputs of a model to calibrate with."""

    samples: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def description(self) -> dict[str, Any]:
        """For the manifest: how much it was, and a hash of it."""
        digest = hashlib.sha256()
        for sample in self.samples:
            for name, value in sorted(sample.items()):
                digest.update(f"{name} {np.shape(value)}".encode() + np.asarray(value).tobytes())
        return {"samples": len(self.samples), "sha256": digest.hexdigest()}


def quantize_activations(
    model_dir: Path,
    out_dir: Path,
    *,
    packed: bool = True,
    force: bool = False,
    progress: bool = True,
    prove: Thresholds | None = None,
    **given: Any,
) -> QuantizeResult:
    """Quantize weights and activations of a language model's directory or of another model.

    Args:
        model_dir: A model directory; or a file that `ovfast.convert` reads, or the directory that it
            wrote.
        out_dir: The directory to write, for the latter also OUT.xml.
        packed: Of language models: pack the weights for ovfast where their format packs.
        force: Quantize a model that is quantized already; replace another one in `out_dir`.
        progress: Show NNCF's progress bars on stderr.
        prove: Compare with the source, with these thresholds; language models only.
        **given: Fields of `ActivationOptions`.

    Returns a QuantizeResult; of models that are no language models a `MeasuredResult`.

    Raises as `ovfast.quantize`; Error also when `max_drop` cannot be held.
    """
    options = ActivationOptions.of(given)
    if find_spec("nncf") is None:
        raise Error("the package nncf is missing: pip install 'ovfast[quantize]'")
    language_model = _is_language_model(model_dir)
    options.check_for(language_model=language_model)
    if language_model:
        from ovfast.quantize.directory import quantize_directory

        return quantize_directory(
            model_dir,
            out_dir,
            RECIPE,
            options,
            packed=packed,
            force=force,
            progress=progress,
            prove=prove,
        )
    if prove is not None:
        raise ValueError(
            "prove: expected nothing, since this is no language model; validation and max_drop "
            "measure others"
        )
    from ovfast.quantize.ptq_file import quantize_file

    return quantize_file(model_dir, out_dir, options, force=force, progress=progress)


def read_inputs(model: ModelDir, options: ActivationOptions) -> Calibration | Inputs:
    """Read what a language model is calibrated with: texts, or inputs as other models take them.

    Raises ValueError as `read_calibration` and `checked_inputs`.
    """
    if not _is_text(options.data):
        import openvino as ov

        core = ov.Core()
        if model.packed:
            from ovfast.ops import register

            register(core, gpu=False)
        return checked_inputs(core.read_model(model.model_xml), options)
    texts = WeightOptions(
        scale_estimation=True,  # one that needs texts
        data=None if options.data is None else str(options.data),
        samples=options.samples,
        sample_tokens=options.sample_tokens,
    )
    return read_calibration(model, texts)


def quantize_language_model(
    model: Any, options: ActivationOptions, calibration: Calibration | Inputs, *, progress: bool
) -> tuple[Any, list[str]]:
    """Quantize the graph of a language model as `quantize_graph` does; every position counts."""
    samples = (
        calibration.inputs({port.get_any_name() for port in model.inputs})
        if isinstance(calibration, Calibration)
        else calibration.samples
    )
    metric = read_metric(model, options)
    remove_fakes(model)  # under force
    open_for_calibration(model)
    if options.model_type is None:
        options = dataclasses.replace(options, model_type="transformer")
    quantized, notes = quantize_graph(model, options, samples, metric, progress=progress)
    close_after_calibration(quantized)
    return quantized, notes


def quantize_graph(
    model: Any,
    options: ActivationOptions,
    samples: list[dict[str, Any]],
    metric: Metric | None,
    *,
    progress: bool,
) -> tuple[Any, list[str]]:
    """Quantize an `openvino.Model` with float weights.

    Args:
        model: Not to be used afterwards.
        options: What to do.
        samples: Inputs to calibrate with, all of which are used.
        metric: What `max_drop` is about.
        progress: Show NNCF's progress bars on stderr.

    Returns the quantized model and notes.

    Raises ValueError for patterns that do not fit the model, ModelError for one that NNCF cannot
    work with, Error when `max_drop` was missed.
    """
    import nncf

    ignored = _find_ignored(model, options.ignored)
    _check_weights(model)
    held = metric if options.max_drop is not None else None
    before = held.measure(model) if held else 0.0
    if held and before == 0 and options.drop_type == "relative":
        raise ValueError(f"drop_type: expected absolute, since {held.name} of the source is 0")
    arguments = _arguments(options, len(samples), ignored)
    try:
        with nncf_output(progress):
            if held:
                quantized = _hold(model, samples, held, before, options, arguments)
            else:
                advanced = arguments.pop("advanced")
                quantized = nncf.quantize(
                    model, nncf.Dataset(samples), advanced_parameters=advanced, **arguments
                )
    except (nncf.UnsupportedModelError, nncf.ValidationError, nncf.InternalError) as error:
        raise ModelError(f"NNCF cannot quantize this model: {error}") from error
    if held:
        _check_drop(held, before, held.measure(quantized), options)
    if any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops()):
        return quantized, []
    return quantized, ["no activation was quantized: nothing in the model can be, or none may"]


def checked_inputs(model: Any, options: ActivationOptions) -> Inputs:
    """Read the inputs that the options name. Raises ValueError when they are too few."""
    samples = read_samples(model, options, options.samples or SAMPLES)
    if any(RESET_STATE in sample for sample in samples):
        # Without its beginning the first sequence would go on from where NNCF's last pass ended.
        samples[0][RESET_STATE] = True
    count = sum(map(rows, samples))
    if count < LEAST_ROWS:
        raise ValueError(
            f"data: expected at least {LEAST_ROWS} rows to calibrate with, got {count}"
        )
    if count >= _FEW_ROWS:
        return Inputs(samples)
    return Inputs(samples, [f"only {count} rows to calibrate with: some {SAMPLES} are the rule"])


def remove_fakes(model: Any) -> None:
    """Let activations of an `openvino.Model` pass as they are, where they are quantized."""
    for number, node in enumerate(model.get_ordered_ops()):
        if "/fq_" in (name := node.get_friendly_name()):
            node.set_friendly_name(f"{name}/before{number}")  # NNCF uses such names again
        if node.get_type_name() == "FakeQuantize":
            for taker in list(node.output(0).get_target_inputs()):
                taker.replace_source_output(node.input_value(0))
    model.validate_nodes_and_infer_types()


def _is_language_model(path: Path) -> bool:
    xml = path / "openvino_model.xml"
    if not xml.is_file() or not (path / "openvino_tokenizer.xml").exists():
        return False
    return b'type="ReadValue"' in xml.read_bytes()


def _is_text(data: object) -> bool:
    if data is None:
        return True
    if not isinstance(data, (str, Path)):
        return False
    path = Path(data)
    if path.is_dir():
        return not any(file.suffix in (".npz", ".npy") for file in path.iterdir())
    return path.exists() and path.suffix not in (".npz", ".npy")


def _find_ignored(model: Any, patterns: tuple[str, ...]) -> list[str]:
    uncounted = ("Constant", "Parameter", "Result")
    names = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() not in uncounted
    ]
    found = []
    for pattern in patterns:
        matched = [name for name in names if re.fullmatch(pattern, name)]
        if not matched:
            raise ValueError(
                f"ignored: expected patterns of operations, got {pattern!r}, which matches none; "
                f"they are called {', '.join(names[:_SHOWN_NAMES])}, ..."
            )
        found += matched
    return sorted(set(found))


def _check_weights(model: Any) -> None:
    """Raise ModelError for a NaN or an infinity in what layers multiply with."""
    weights = []
    for node in model.get_ops():
        if node.get_type_name() in WEIGHTED:
            values = [node.input(index) for index in range(2)]
            weights += [Weight(value.get_source_output(), [value]) for value in values]
    check_finite(weights)


def _arguments(options: ActivationOptions, samples: int, ignored: list[str]) -> dict[str, Any]:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters

    transformer = options.model_type == "transformer"
    advanced = nncf.AdvancedQuantizationParameters()
    if options.smooth_quant is not None:
        advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(matmul=options.smooth_quant)
    return {
        "preset": nncf.QuantizationPreset(options.preset) if options.preset else None,
        "target_device": nncf.TargetDevice[DEVICES[options.target_device]],
        "subset_size": samples,
        "fast_bias_correction": options.fast_bias_correction,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "ignored_scope": nncf.IgnoredScope(names=ignored) if ignored else None,
        "advanced": advanced,
    }


def _hold(
    model: Any,
    samples: list[dict[str, Any]],
    metric: Metric,
    before: float,
    options: ActivationOptions,
    arguments: dict[str, Any],
) -> Any:
    """Quantize, and give up what costs most until the metric holds."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters

    # NNCF divides by the first value even if the drop is absolute.
    offset = 1.0 if before == 0 else 0.0
    return nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(samples),
        nncf.Dataset(metric.data),
        validation_fn=lambda compiled, data: metric(compiled, data) + offset,
        max_drop=options.max_drop,
        drop_type=nncf.DropType(options.drop_type or "absolute"),
        advanced_quantization_parameters=arguments.pop("advanced"),
        # A person's function may not bear to run twice at a time.
        advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
            num_ranking_workers=1
        ),
        **arguments,
    )


def _check_drop(metric: Metric, before: float, after: float, options: ActivationOptions) -> None:
    assert options.max_drop is not None
    drop = before - after
    relative = options.drop_type == "relative"
    if relative:
        drop = drop / abs(before) if before else 0.0
    # The metric is a sum of floats.
    if drop > options.max_drop + 1e-9:
        raise Error(
            f"{metric.name} fell from {before:.4f} to {after:.4f}: expected a"
            f"{' relative' if relative else ''} drop of at most {options.max_drop}. Nothing was "
            "written"
        )
