"""Post-training quantization of models that are no language models: IR, ONNX and others."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovfast.convert.frontend import finish, read_graph, reason
from ovfast.convert.graph import name_ports
from ovfast.convert.source import Source, recognise
from ovfast.convert.write import check_out, write
from ovfast.errors import Error, ModelError
from ovfast.export.manifest import read_manifest, step
from ovfast.progress import Bar
from ovfast.quantize import QuantizeResult
from ovfast.quantize.accuracy import read_metric
from ovfast.quantize.expand import compressed_weights
from ovfast.quantize.measure import Comparison, compare
from ovfast.quantize.ptq import (
    RECIPE,
    WEIGHTED,
    Inputs,
    checked_inputs,
    quantize_graph,
    remove_fakes,
)
from ovfast.quantize.ptq_options import ActivationOptions

__all__ = ["MeasuredResult", "quantize_file"]

_MODEL = "openvino_model.xml"


@dataclass(frozen=True)
class MeasuredResult(QuantizeResult):
    """What a quantization did, and what became of the model."""

    comparison: Comparison | None = None
    """None when it was not wanted."""


def quantize_file(
    source: Path, out: Path, options: ActivationOptions, *, force: bool, progress: bool
) -> MeasuredResult:
    """Quantize a model; see `ovfast.quantize.ptq.quantize_activations`."""
    start = time.perf_counter()
    check_out(out, force=force)
    _check_places(source, out)
    known = recognise(source / _MODEL if (source / _MODEL).is_file() else source)
    if known.framework == "pytorch":
        raise ValueError(f"'{source}' is a PyTorch model: convert it first, with ovfast convert")
    with Bar(source.resolve().name, progress) as bar:
        bar.show(0.0, "reading")
        model, _input_model = read_graph(known, {}, None, partly=False)
        name_ports(model)
        if known.framework != "ir":
            finish(model)
    notes = _check_source(model, source, force)
    inputs = checked_inputs(model, options)
    metric = read_metric(model, options)
    # What NNCF is given stays as it is: it is compared with.
    quantized, more = quantize_graph(
        model.clone(), options, inputs.samples, metric, progress=progress
    )
    notes += [*inputs.notes, *more]
    comparison: Comparison | None = None

    def measure(xml: Path) -> None:
        nonlocal comparison
        if not options.compare:
            return
        import openvino as ov

        size = sum(xml.with_suffix(suffix).stat().st_size for suffix in (".xml", ".bin"))
        written = ov.Core().read_model(xml)
        try:
            comparison = compare(model, written, inputs.samples, metric, (known.bytes, size))
        except Error:
            raise
        except RuntimeError as error:
            raise ModelError(f"source or result does not run here: {reason(error)}") from error

    def manifest() -> dict[str, Any]:
        return _manifest(source, known, options, inputs, comparison, notes)

    with Bar(source.resolve().name, progress) as bar:
        bar.show(0.9, "writing and comparing")
        xml = write(quantized, out, fp16=False, force=force, describe=manifest, check=measure)
    return MeasuredResult(
        model_dir=out,
        source=source,
        recipe=RECIPE,
        reused=False,
        seconds=time.perf_counter() - start,
        weights_bytes=xml.with_suffix(".bin").stat().st_size,
        source_bytes=known.bytes,
        packed=False,
        layers=dict(_quantized(quantized)),
        notes=notes,
        comparison=comparison,
    )


def _check_places(source: Path, out: Path) -> None:
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"'{out}' is the source; choose another name")


def _check_source(model: Any, source: Path, force: bool) -> list[str]:
    """Refuse what is quantized already; with `force` make floats of it and return a note."""
    fakes = sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    weights = len(compressed_weights(model))
    if not fakes and not weights:
        return []
    state = ", ".join(
        text
        for count, text in (
            (fakes, f"{fakes} quantized activations (FakeQuantize)"),
            (weights, f"{weights} layers with compressed weights"),
        )
        if count
    )
    if not force:
        raise ValueError(
            f"'{source}' is quantized already: {state}. Give the model that it was made of, or "
            "quantize what it has become with --force (force=True)"
        )
    _remove_quantization(model)
    return [f"made of a model that was quantized before: {state}"]


def _remove_quantization(model: Any) -> None:
    from openvino.passes import ConstantFolding, Manager

    remove_fakes(model)
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)


def _quantized(model: Any) -> Counter[str]:
    """Layers whose weights are 8-bit integers, by type of operation."""
    found: Counter[str] = Counter()
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind not in WEIGHTED:
            continue
        weight = node.input_value(kind != "Gather").get_node()
        while weight.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape"):
            weight = weight.input_value(0).get_node()
        if weight.get_type_name() == "Constant":
            bits = weight.get_element_type().get_type_name()
            found.update([f"int8 {kind}"] if bits in ("i8", "u8") else [])
    return found


def _manifest(
    source: Path,
    known: Source,
    options: ActivationOptions,
    inputs: Inputs,
    comparison: Comparison | None,
    notes: list[str],
) -> dict[str, Any]:
    before = read_manifest(source) if source.is_dir() else None
    measured = None if comparison is None else dataclasses.asdict(comparison)
    made_by = step(
        "quantize",
        ("openvino", "nncf"),
        recipe=RECIPE,
        **options.given(),
        calibration=inputs.description,
        measured=measured,
    )
    return {
        "source": before["source"] if before else known.describe(),
        "steps": [*(before["steps"] if before else []), made_by],
        "notes": [*(before.get("notes", []) if before else []), *notes],
    }
