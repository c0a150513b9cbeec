"""Export of a GGUF file: weights here, the tokenizer in a child process, the hash in a thread."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from ovfast import _core
from ovfast.errors import Error, ModelError
from ovfast.export import ExportResult
from ovfast.export.manifest import BackgroundHash, read_manifest, sha256, step, write_manifest
from ovfast.export.stderr import HeldStderr
from ovfast.export.target import written_directory
from ovfast.export.tokenizer import TokenizerJob
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar

__all__ = ["export_gguf"]

_TOOLS = ("openvino", "openvino-tokenizers", "transformers", "tokenizers")
# What the frontend prints of its conversions, once in a process; `_notes()` says it better.
_NOTICES = (
    b"[GGUF] accuracy notice: Q4_K weights use ",
    b"[GGUF] accuracy notice: the token embedding / output / Q6_K / Q5_K weights are requantized ",
)
_CONVERSION_SHARE = 0.9  # of the bar; the rest is for what the tokenizer takes longer


def export_gguf(
    source: Path,
    out_dir: Path,
    *,
    progress: bool = True,
    force: bool = False,
    packed: bool = True,
    digest: str | None = None,
) -> ExportResult:
    """Convert a GGUF file; see `ovfast.export.export`.

    `digest` is the file's sha256 if the caller knows it.
    """
    start = time.perf_counter()
    header = _core.read_gguf_header(source)
    before = _fingerprint(source)
    types = header.bytes_by_type()
    made_by = step("export", _TOOLS, packed=packed)

    def is_same() -> bool:
        return _holds(out_dir, source, digest, made_by)

    def waiting() -> None:
        bar.show(0.0, "waiting for another export of this directory")

    with Bar(source.name, progress) as bar:
        with written_directory(out_dir, force=force, is_same=is_same, waiting=waiting) as place:
            if place is not None:
                report, digest = _convert(source, place, digest, packed, bar)
                if _fingerprint(source) != before:
                    raise ModelError(f"'{source}' changed while it was exported; try again")
                description = {
                    "kind": "gguf",
                    "file": source.name,
                    "bytes": header.file_size,
                    "sha256": digest,
                    "architecture": header.architecture,
                    "tensor_types": types,
                }
                notes = report.notes if report.packed else [*_notes(types), *report.notes]
                write_manifest(place, source=description, steps=[made_by], notes=notes)
                ModelDir.check(place)
        bar.show(1.0, "done")
    model, manifest = ModelDir.check(out_dir), read_manifest(out_dir)
    return ExportResult(
        model_dir=out_dir,
        source=source,
        reused=place is None,
        seconds=time.perf_counter() - start,
        weights_bytes=model.weights_bytes,
        packed=model.packed,
        tensor_types=types,
        notes=manifest["notes"] if manifest else [],
    )


def _convert(
    source: Path, directory: Path, digest: str | None, packed: bool, bar: Bar
) -> tuple[_core.PackReport, str]:
    """Write everything but the manifest; return what was packed and the sha256 of the source."""
    with contextlib.ExitStack() as stack:
        job = TokenizerJob(source, directory)
        stack.callback(job.close)
        hashing = BackgroundHash(source) if digest is None else None
        if hashing is not None:
            stack.callback(hashing.cancel)

        try:
            report = _import(source, directory, packed, bar, job)
        except Error:
            if job.failed():
                job.result()  # raises the reason for which the conversion was stopped
            raise
        bar.show(_CONVERSION_SHARE, "converting the tokenizer")
        job.result()
        return report, hashing.result() if hashing is not None else str(digest)


def _import(
    source: Path, directory: Path, packed: bool, bar: Bar, job: TokenizerJob
) -> _core.PackReport:
    """Write the weights; give up when the job has failed."""
    with contextlib.ExitStack() as stack:
        file = source
        if source.suffix != ".gguf":  # which the frontend insists on
            file = directory / "source.gguf"
            try:
                file.symlink_to(source.resolve())
            except OSError as error:
                raise Error(
                    f"'{source}' is not called .gguf, and no link to it can be made in "
                    f"'{directory.parent}': {error.strerror}. Rename it."
                ) from error
            stack.callback(file.unlink)
        held = stack.enter_context(HeldStderr(*_NOTICES))

        def proceed(fraction: float, what: str) -> bool:
            with held.released():
                bar.show(fraction * _CONVERSION_SHARE, what)
            return not job.failed()

        try:
            return _core.import_gguf(file, directory, proceed, packed=packed)
        except Error as error:
            if file == source:
                raise
            raise type(error)(str(error).replace(str(file), str(source))) from None


def _notes(types: dict[str, int]) -> list[str]:
    """What the frontend changes about weights of these types."""
    notes = []
    if "Q4_K" in types:
        notes.append("Q4_K: each block's minimum was rounded to a multiple of its scale")
    return notes


def _holds(out_dir: Path, source: Path, digest: str | None, made_by: dict[str, Any]) -> bool:
    """Whether a directory is a whole export of this very file by this very version."""
    try:
        manifest = read_manifest(out_dir)
        if ModelDir.check(out_dir).packed:
            _core.inspect_packing(out_dir)
    except ModelError:
        return False
    if manifest is None or manifest["steps"] != [made_by]:
        return False
    known = manifest["source"]
    if known.get("kind") != "gguf" or known.get("bytes") != source.stat().st_size:
        return False
    return bool(known.get("sha256") == (digest or sha256(source)))


def _fingerprint(source: Path) -> tuple[int, int, int]:
    status = source.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
