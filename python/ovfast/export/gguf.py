"""Export of a GGUF file: weights here, the tokenizer in a child process, the hash in a thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ovfast import _core
from ovfast.errors import Error, ModelError
from ovfast.export import ExportResult
from ovfast.export.manifest import BackgroundHash, read_manifest, sha256, step, write_manifest
from ovfast.export.staging import Staging, locked
from ovfast.export.stderr import HeldStderr
from ovfast.export.target import check_target
from ovfast.export.tokenizer import TokenizerJob
from ovfast.model_dir import ModelDir

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
    digest: str | None = None,
) -> ExportResult:
    """Convert a GGUF file; see `ovfast.export.export`.

    `digest` is the file's sha256 if the caller knows it.
    """
    start = time.perf_counter()
    header = _core.read_gguf_header(source)
    before = _fingerprint(source)
    types = header.bytes_by_type()
    notes = _notes(types)
    with _bar(source.name, progress) as bar, locked(out_dir, waiting=bar.waiting):
        reused = False
        if check_target(out_dir, force=force, is_same=lambda: _holds(out_dir, source, digest)):
            reused = True
        else:
            with Staging(out_dir) as staging:
                digest = _convert(source, staging.path, digest, bar)
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
                write_manifest(
                    staging.path, source=description, steps=[step("export", _TOOLS)], notes=notes
                )
                ModelDir.check(staging.path)
                try:
                    staging.commit()
                except OSError as error:
                    raise Error(f"cannot write '{out_dir}': {error.strerror}") from error
        bar.finish()
    return ExportResult(
        model_dir=out_dir,
        source=source,
        reused=reused,
        seconds=time.perf_counter() - start,
        weights_bytes=ModelDir.check(out_dir).weights_bytes,
        tensor_types=types,
        notes=notes,
    )


def _convert(source: Path, directory: Path, digest: str | None, bar: _Bar) -> str:
    """Write everything but the manifest; return the sha256 of the source."""
    with contextlib.ExitStack() as stack:
        job = TokenizerJob(source, directory)
        stack.callback(job.close)
        hashing = BackgroundHash(source) if digest is None else None
        if hashing is not None:
            stack.callback(hashing.cancel)

        try:
            _import(source, directory, bar, job)
        except Error:
            if job.failed():
                job.result()  # raises the reason for which the conversion was stopped
            raise
        bar.show(_CONVERSION_SHARE, "converting the tokenizer")
        job.result()
        return hashing.result() if hashing is not None else str(digest)


def _import(source: Path, directory: Path, bar: _Bar, job: TokenizerJob) -> None:
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
            _core.import_gguf(file, directory, proceed)
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


def _holds(out_dir: Path, source: Path, digest: str | None) -> bool:
    """Whether a directory is a whole export of this very file by this very version."""
    try:
        manifest = read_manifest(out_dir)
        ModelDir.check(out_dir)
    except ModelError:
        return False
    if manifest is None or manifest["steps"] != [step("export", _TOOLS)]:
        return False
    known = manifest["source"]
    if known.get("kind") != "gguf" or known.get("bytes") != source.stat().st_size:
        return False
    return bool(known.get("sha256") == (digest or sha256(source)))


def _fingerprint(source: Path) -> tuple[int, int, int]:
    status = source.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Bar:
    """A progress bar that goes from 0 to 1, with what is being done behind it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._what = ""

    def show(self, fraction: float, what: str) -> None:
        self._bar.update(max(0, round(fraction * 100) - self._bar.n))
        if what != self._what:
            self._what = what
            self._bar.set_postfix_str(what)

    def waiting(self) -> None:
        self._bar.set_postfix_str("waiting for another export of this directory")

    def finish(self) -> None:
        self.show(1.0, "done")


@contextlib.contextmanager
def _bar(name: str, progress: bool) -> Iterator[_Bar]:
    with tqdm(
        total=100,
        desc=name,
        # None: only where stderr is a terminal.
        disable=None if progress else True,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
        leave=False,
        postfix="converting",
    ) as bar:
        yield _Bar(bar)
