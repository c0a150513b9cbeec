"""The steps from a Hugging Face folder to a model directory."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from ovfast import _core
from ovfast.errors import Error, ModelError
from ovfast.export import ExportResult
from ovfast.export.decoder.checkpoint import Checkpoint
from ovfast.export.decoder.config import DecoderConfig, read_config
from ovfast.export.decoder.plan import Plan, make_plan
from ovfast.export.decoder.weight_format import formats
from ovfast.export.decoder.writer import check_space, write_weights
from ovfast.export.manifest import read_manifest, step, write_manifest
from ovfast.export.staging import resumable
from ovfast.export.target import written_directory
from ovfast.export.tokenizer import TokenizerJob
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar

__all__ = ["convert"]

_TOOLS = ("openvino", "openvino-tokenizers", "transformers", "tokenizers")
# Shares of the bar that end with writing the weights and with packing them.
_WRITTEN, _PACKED = 0.7, 0.95
_OTHER_BYTES = 100_000_000  # tokenizers, texts


def convert(
    source: Path,
    out_dir: Path,
    *,
    weights: str,
    group_size: int | None,
    progress: bool,
    force: bool,
    packed: bool,
) -> ExportResult:
    """See `export_decoder`."""
    start = time.perf_counter()
    layers, tables = formats(weights, group_size)
    config = read_config(source)
    checkpoint = Checkpoint(source)
    plan = make_plan(checkpoint, config, layers, tables)
    origin = _describe(source, checkpoint, config)
    made_by = step("export", _TOOLS, weights=weights, group_size=layers.group, packed=packed)

    def waiting() -> None:
        bar.show(0.0, "waiting for another export of this directory")

    with Bar(source.resolve().name, progress) as bar:
        with written_directory(
            out_dir,
            force=force,
            is_same=lambda: _holds(out_dir, origin, made_by),
            waiting=waiting,
            resumes=True,
        ) as place:
            if place is not None:
                # A kill leaves the work for the next run; whatever we get to know of, does not.
                work = resumable(out_dir)
                try:
                    notes = _notes(layers.text, tables.text)
                    notes += [*plan.notes, *config.notes]
                    work.mkdir(exist_ok=True)
                    key = json.dumps([origin["sha256"], made_by, plan.size])
                    notes += _write(
                        checkpoint, config, plan, work, place, key, packed=packed, bar=bar
                    )
                    write_manifest(place, source=origin, steps=[made_by], notes=notes)
                    ModelDir.check(place)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        bar.show(1.0, "done")
    model, manifest = ModelDir.check(out_dir), read_manifest(out_dir)
    return ExportResult(
        model_dir=out_dir,
        source=source,
        reused=place is None,
        seconds=time.perf_counter() - start,
        weights_bytes=model.weights_bytes,
        packed=model.packed,
        notes=manifest["notes"] if manifest else [],
    )


def _write(
    checkpoint: Checkpoint,
    config: DecoderConfig,
    plan: Plan,
    work: Path,
    out_dir: Path,
    key: str,
    *,
    packed: bool,
    bar: Bar,
) -> list[str]:
    """Write all files but the manifest; return notes."""
    binary = work / "openvino_model.bin"
    there = binary.stat().st_blocks * 512 if binary.exists() else 0  # of a run that was killed
    # The stock form lies beside the packed one for a while.
    check_space(work, plan.size * (2 if packed else 1) + _OTHER_BYTES - there)
    job = TokenizerJob(checkpoint.folder, out_dir)
    try:
        written = _WRITTEN if packed else _PACKED

        def show(fraction: float, what: str) -> None:
            if job.failed():
                job.result()  # raises what went wrong
            bar.show(fraction * written, what)

        write_weights(checkpoint, plan, binary, key, show)
        _write_graph(config, plan, binary)
        notes = _pack(work, out_dir, job, bar) if packed else []
        if not (out_dir / "openvino_model.xml").exists():
            for file in (binary, binary.with_suffix(".xml")):
                file.rename(out_dir / file.name)
        _write_configuration(checkpoint.folder, config, out_dir)
        bar.show(_PACKED, "converting the tokenizer")
        job.result()
    finally:
        job.close()
    return notes


def _write_graph(config: DecoderConfig, plan: Plan, binary: Path) -> None:
    from ovfast.export.decoder.graph import build_graph
    from ovfast.export.decoder.ir import write_ir

    write_ir(build_graph(config, plan), plan, binary)


def _pack(work: Path, out_dir: Path, job: TokenizerJob, bar: Bar) -> list[str]:
    def proceed(fraction: float, what: str) -> bool:
        bar.show(_WRITTEN + fraction * (_PACKED - _WRITTEN), what)
        return not job.failed()

    try:
        report = _core.pack_model(work, out_dir, proceed)
    except Error:
        if job.failed():
            job.result()
        raise
    notes = list(report.notes)
    if not report.packed:
        notes.append("no weights of this model pack: it stays as it is")
    return notes


def _write_configuration(folder: Path, config: DecoderConfig, out_dir: Path) -> None:
    text = json.dumps(config.content, indent=2, ensure_ascii=False) + "\n"
    (out_dir / "config.json").write_text(text, encoding="utf-8")
    generation = folder / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, out_dir / generation.name)


def _describe(source: Path, checkpoint: Checkpoint, config: DecoderConfig) -> dict[str, Any]:
    try:
        texts = [
            file.read_bytes()
            for file in sorted(source.iterdir())
            if file.suffix in (".json", ".jinja", ".model") and file.is_file()
        ]
        digest = hashlib.sha256(checkpoint.fingerprint().encode())
    except OSError as error:
        raise ModelError(f"'{source}' cannot be read: {error}") from error
    for text in texts:
        digest.update(hashlib.sha256(text).digest())
    return {
        "kind": "huggingface",
        "directory": source.resolve().name,
        "bytes": checkpoint.size,
        "sha256": digest.hexdigest(),
        "architecture": config.family,
    }


def _notes(layers: str, tables: str) -> list[str]:
    if layers == tables:
        return [f"linear layers, embedding and lm_head are {layers}"]
    return [f"linear layers are {layers}, embedding and lm_head {tables}"]


def _holds(out_dir: Path, origin: dict[str, Any], made_by: dict[str, Any]) -> bool:
    """Whether a directory is a whole export of this very model by this very version."""
    try:
        manifest = read_manifest(out_dir)
        if ModelDir.check(out_dir).packed:
            _core.inspect_packing(out_dir)
    except ModelError:
        return False
    if manifest is None or manifest["steps"] != [made_by]:
        return False
    return bool(manifest["source"].get("sha256") == origin["sha256"])
