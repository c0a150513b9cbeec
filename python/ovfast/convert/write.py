"""Writing a converted model: a directory, or a pair of files, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast.errors import Error
from ovfast.export.manifest import write_manifest
from ovfast.export.staging import Staging, locked
from ovfast.export.target import check_target

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["check_out", "is_file", "write"]

_MODEL = "openvino_model.xml"


def is_file(out: Path) -> bool:
    """Whether the output is a pair of files OUT.xml and OUT.bin; otherwise it is a directory."""
    return out.suffix.lower() == ".xml" and not out.is_dir()


def check_out(out: Path, *, force: bool) -> None:
    """Raise ValueError when something that must not be replaced is there."""
    if not is_file(out):
        check_target(out, force=force, is_same=lambda: False)
        return
    there = [file for file in (out, out.with_suffix(".bin")) if file.exists()]
    if there and not force:
        raise ValueError(
            f"'{there[0]}' is there already; replace it with --force (force=True) or choose "
            "another name"
        )
    for file in there:
        if not file.is_file():
            raise ValueError(f"'{file}' is not a file")


def write(
    model: ov.Model,
    out: Path,
    *,
    fp16: bool,
    force: bool,
    describe: Callable[[], dict[str, Any]],
    check: Callable[[Path], Any],
) -> Path:
    """Write a model; return its .xml.

    Args:
        model: What to write.
        out: The directory, or OUT.xml.
        fp16: Round weights of f32 to f16.
        force: What is there may be replaced.
        describe: Gives source, steps and notes for the manifest, after `check`.
        check: Called with the complete .xml before it is put in its place; may raise.

    Raises Error when it cannot be written, ValueError as `check_out`.
    """
    import openvino as ov

    single = is_file(out)
    with locked(out, waiting=lambda: None), Staging(out) as staging:
        check_out(out, force=force)
        xml = staging.path / (out.name if single else _MODEL)
        free = shutil.disk_usage(staging.path).free / 1e6
        try:
            ov.save_model(model, xml, compress_to_fp16=fp16)
        except RuntimeError as error:
            raise Error(f"cannot write '{out}', where {free:.1f} MB are free: {error}") from error
        check(xml)
        try:
            if not single:
                write_manifest(staging.path, **describe())
                staging.commit()
                return out / _MODEL
            _move(xml, out)
        except OSError as error:
            raise Error(f"cannot write '{out}': {error.strerror}") from error
    return out


def _move(xml: Path, out: Path) -> None:
    """Put both files in their place. Without the .xml, which comes last, nothing is a model."""
    for file in (xml.with_suffix(".bin"), xml):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    out.unlink(missing_ok=True)
    xml.with_suffix(".bin").replace(out.with_suffix(".bin"))
    xml.replace(out)
