"""From one model directory to a quantized one: checks, staging, manifest."""

from __future__ import annotations

import gc
import json
import re
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast import _core
from ovfast.errors import Error, ModelError
from ovfast.export import directory as directories
from ovfast.export.manifest import NAME, read_manifest, sha256, step, write_manifest
from ovfast.export.target import written_directory
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar
from ovfast.quantize import QuantizeResult
from ovfast.quantize.calibration import Calibration, read_calibration
from ovfast.quantize.detect import count_formats, describe_quantization
from ovfast.quantize.options import WeightOptions
from ovfast.quantize.ptq import Inputs, quantize_language_model, read_inputs
from ovfast.quantize.ptq_options import ActivationOptions
from ovfast.quantize.source import read_stock
from ovfast.quantize.weights import compress

if TYPE_CHECKING:
    from ovfast.evaluate.options import Thresholds

__all__ = ["quantize_directory"]

_OF_SOURCE = "of the source: "  # what notes begin with that were its own
_MODEL_FILE = re.compile(r"openvino_model\.")


def quantize_directory(
    source: Path,
    out_dir: Path,
    recipe: str,
    options: WeightOptions | ActivationOptions,
    *,
    packed: bool = True,
    force: bool = False,
    progress: bool = True,
    prove: Thresholds | None = None,
) -> QuantizeResult:
    """Quantize a model directory; see `ovfast.quantize.quantize`."""
    start = time.perf_counter()
    if find_spec("nncf") is None:
        raise Error("the package nncf is missing: pip install 'ovfast[quantize]'")
    model = ModelDir.check(source)
    _check_places(source, out_dir)
    notes = _check_source(model, force)
    calibration = _read_calibration(model, options)
    made_by = _describe(source, recipe, options, calibration)

    def waiting() -> None:
        bar.show(0.0, "waiting for somebody else who writes this directory")

    with (
        Bar(source.resolve().name, progress) as bar,
        written_directory(
            out_dir,
            force=force,
            is_same=lambda: _holds(out_dir, made_by, packed, prove),
            waiting=waiting,
        ) as place,
    ):
        if place is not None:
            _write(place, model, options, calibration, progress, notes)
            _finish(place, source, made_by, packed, notes, bar)
            quality = _prove(place, source, prove, progress)
            if quality is not None:
                _add_quality(place, quality)
            ModelDir.check(place)
    result, manifest = ModelDir.check(out_dir), read_manifest(out_dir) or {}
    return QuantizeResult(
        model_dir=out_dir,
        source=source,
        recipe=recipe,
        reused=place is None,
        seconds=time.perf_counter() - start,
        weights_bytes=result.weights_bytes,
        source_bytes=model.weights_bytes,
        packed=result.packed,
        layers=dict(count_formats(result)),
        notes=list(manifest.get("notes", [])),
        quality=manifest.get("quality"),
    )


def _check_places(source: Path, out_dir: Path) -> None:
    if out_dir.exists() and out_dir.samefile(source):
        raise ValueError(f"'{out_dir}' is the source; choose another directory")
    if source.resolve() in out_dir.resolve().parents:
        raise ValueError(f"'{out_dir}' lies inside of '{source}'; choose another directory")


def _check_source(model: ModelDir, force: bool) -> list[str]:
    """Refuse what is quantized already; with `force` return a note about it."""
    state = describe_quantization(model)
    if state is None:
        return []
    if not force:
        raise ValueError(
            f"'{model.path}' is quantized already: {state}. Give the model that it was made of, or "
            "quantize what its weights have become with --force (force=True)"
        )
    return [f"made of a model that was quantized before: {state}"]


def _read_calibration(
    model: ModelDir, options: WeightOptions | ActivationOptions
) -> Calibration | Inputs | None:
    if isinstance(options, ActivationOptions):
        return read_inputs(model, options)
    return read_calibration(model, options) if options.needs_data else None


def _describe(
    source: Path,
    recipe: str,
    options: WeightOptions | ActivationOptions,
    calibration: Calibration | Inputs | None,
) -> dict[str, Any]:
    """Return the step for the manifest; equal steps mean equal results."""
    given = options.given()
    if "data" in given:  # a path says nothing elsewhere; the hash of the tokens does
        given["data"] = Path(given["data"]).name
    more = {} if calibration is None else {"calibration": calibration.description}
    model = " ".join(sha256(source / f"openvino_model.{suffix}") for suffix in ("xml", "bin"))
    return step("quantize", ("openvino", "nncf"), recipe=recipe, **given, **more, model=model)


def _holds(out_dir: Path, made_by: dict[str, Any], packed: bool, prove: Thresholds | None) -> bool:
    """Whether a directory is a whole result of this very step."""
    try:
        manifest = read_manifest(out_dir)
        model = ModelDir.check(out_dir)
        if model.packed:
            _core.inspect_packing(out_dir)  # raises when it is damaged
    except ModelError:
        return False
    if manifest is None or made_by not in manifest["steps"]:
        return False
    if prove is not None:
        return False  # anew, since thresholds and the source may be others
    steps = [one["name"] for one in manifest["steps"][manifest["steps"].index(made_by) + 1 :]]
    return steps == (["pack"] if packed else [])


def _write(
    directory: Path,
    model: ModelDir,
    options: WeightOptions | ActivationOptions,
    calibration: Calibration | Inputs | None,
    progress: bool,
    notes: list[str],
) -> None:
    """Write the compressed model in standard operations; add to the notes."""
    import openvino as ov

    with Bar(model.path.resolve().name, progress) as bar:
        graph = read_stock(model.path, expand=True, progress=bar.show, scratch=directory)
    if isinstance(options, ActivationOptions):
        assert calibration is not None
        graph, more = quantize_language_model(graph, options, calibration, progress=progress)
    else:
        assert not isinstance(calibration, Inputs)
        graph, more = compress(graph, options, calibration, progress=progress)
    notes += [*(calibration.notes if calibration else []), *more]
    try:
        ov.save_model(graph, directory / "openvino_model.xml", compress_to_fp16=False)
    except RuntimeError as error:
        raise Error(f"cannot write the compressed model: {error}") from error
    del graph
    gc.collect()  # graphs of Python objects have cycles, and hold all weights


def _finish(
    directory: Path,
    source: Path,
    made_by: dict[str, Any],
    packed: bool,
    notes: list[str],
    bar: Bar,
) -> None:
    """Pack, add what else belongs to a model directory, and write the manifest."""
    manifest = read_manifest(source)
    origin = manifest["source"] if manifest else directories.describe_model(source)
    steps = [*(manifest["steps"] if manifest else []), made_by]
    before = [
        note if note.startswith(_OF_SOURCE) else _OF_SOURCE + note
        for note in (manifest.get("notes", []) if manifest else [])
    ]
    if packed:
        stock = directory / "stock"
        stock.mkdir()
        for file in list(directory.iterdir()):
            if _MODEL_FILE.match(file.name):
                file.rename(stock / file.name)
        report = _core.pack_model(stock, directory, bar.show)
        steps.append(step("pack", ("openvino",)))
        notes += report.notes
        if not report.packed:
            notes.append("no weights of this format pack: the model keeps OpenVINO's operations")
            for file in list(stock.iterdir()):
                file.rename(directory / file.name)
        shutil.rmtree(stock)
    for file in sorted(source.iterdir()):
        if directories.is_model_file(file) and not _MODEL_FILE.match(file.name):
            directories.link_or_copy(file, directory / file.name)
    write_manifest(directory, source=origin, steps=steps, notes=[*before, *notes])


def _prove(
    directory: Path,
    source: Path,
    thresholds: Thresholds | None,
    progress: bool,
) -> dict[str, Any] | None:
    """Compare with the source. Raises Error when a threshold is missed."""
    if thresholds is None:
        return None
    from ovfast.evaluate import prove

    quality = prove(directory, source, thresholds, progress=progress)
    if not quality["passed"]:
        failures = "; ".join(quality["failures"])
        raise Error(f"the quantized model fails: {failures}. Nothing was written.")
    return quality


def _add_quality(directory: Path, quality: dict[str, Any]) -> None:
    manifest = read_manifest(directory)
    assert manifest is not None
    manifest["quality"] = quality
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (directory / NAME).write_text(text, encoding="utf-8")
