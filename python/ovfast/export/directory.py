"""Export of a directory that holds a model in OpenVINO's form: checked, packed or taken as it is."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ovfast import _core
from ovfast.errors import ModelError
from ovfast.export import ExportResult
from ovfast.export.manifest import NAME, read_manifest, sha256, step, write_manifest
from ovfast.export.staging import is_ours
from ovfast.export.target import written_directory
from ovfast.model_dir import PACK_MANIFEST, ModelDir
from ovfast.progress import Bar

__all__ = ["describe_model", "export_directory", "is_model_file", "link_or_copy"]

_PACKED_FILES = ("openvino_model.xml", "openvino_model.bin", PACK_MANIFEST)
# Where the file system has no links or the directories lie on two of them.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}


def export_directory(
    source: Path,
    out_dir: Path,
    *,
    progress: bool = True,
    force: bool = False,
    packed: bool = True,
) -> ExportResult:
    """Check a model directory and pack, link or copy it to `out_dir`; see `ovfast.export.export`."""
    start = time.perf_counter()
    model = ModelDir.check(source)
    if model.packed:
        if not packed:
            raise ValueError(
                f"'{source}' holds a packed model, which cannot be unpacked; export what it was "
                "made of"
            )
        _core.inspect_packing(source)  # raises when it is damaged
        packed = False  # it is, so it is taken as it is
    reused = True
    if not (out_dir.exists() and out_dir.samefile(source)):
        if source.resolve() in out_dir.resolve().parents:
            raise ValueError(f"'{out_dir}' lies inside of '{source}'; choose another directory")
        with (
            Bar(source.resolve().name, progress) as bar,
            written_directory(
                out_dir, force=force, is_same=lambda: _same(source, out_dir, packed)
            ) as place,
        ):
            if place is not None:
                reused = False
                _take(source, place, packed, bar)
        model = ModelDir.check(out_dir)
    manifest = read_manifest(out_dir)
    return ExportResult(
        model_dir=out_dir,
        source=source,
        reused=reused,
        seconds=time.perf_counter() - start,
        weights_bytes=model.weights_bytes,
        packed=model.packed,
        notes=list(manifest.get("notes", [])) if manifest else [],
    )


def _take(source: Path, directory: Path, packed: bool, bar: Bar) -> None:
    manifest = read_manifest(source)
    origin = manifest["source"] if manifest else describe_model(source)
    steps = list(manifest["steps"]) if manifest else []
    notes = list(manifest.get("notes", [])) if manifest else []
    report = _core.pack_model(source, directory, bar.show) if packed else None
    for file in sorted(source.iterdir()):
        if is_model_file(file) and not (directory / file.name).exists():
            link_or_copy(file, directory / file.name)
    if report is not None:
        steps.append(step("pack", ("openvino",), model=_fingerprint(source)))
        notes += report.notes
        if not report.packed:
            notes.append("no weights of this model pack: it stays as it is")
    else:
        steps.append(step("take", ("openvino",)))
    write_manifest(directory, source=origin, steps=steps, notes=notes)
    ModelDir.check(directory)


def link_or_copy(file: Path, target: Path) -> None:
    """Make `target` the same file, or another of the same content where links do not reach."""
    try:
        os.link(file.resolve(), target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(file, target)


def describe_model(source: Path) -> dict[str, Any]:
    """What a manifest says of a model directory that has none."""
    return {
        "kind": "openvino",
        "directory": source.resolve().name,
        "bytes": (source / "openvino_model.bin").stat().st_size,
        "sha256": sha256(source / "openvino_model.bin"),
    }


def is_model_file(file: Path) -> bool:
    """Whether a file of a model directory belongs to the model itself."""
    return file.is_file() and file.name != NAME and not is_ours(file.name)


def _fingerprint(source: Path) -> str:
    """Of the model alone."""
    return " ".join(sha256(source / f"openvino_model.{suffix}") for suffix in ("xml", "bin"))


def _same(source: Path, out_dir: Path, packed: bool) -> bool:
    """Whether `out_dir` is a whole copy or packing of `source`, made by this very version."""
    try:
        manifest = read_manifest(out_dir)
        if ModelDir.check(out_dir).packed:
            _core.inspect_packing(out_dir)
    except ModelError:
        return False
    if packed:
        wanted = step("pack", ("openvino",), model=_fingerprint(source))
        if manifest is None or manifest["steps"][-1:] != [wanted]:
            return False
    elif (out_dir / PACK_MANIFEST).exists() != (source / PACK_MANIFEST).exists():
        return False
    for file in source.iterdir():
        if not is_model_file(file) or (packed and file.name in _PACKED_FILES):
            continue
        other = out_dir / file.name
        if not other.is_file() or file.stat().st_size != other.stat().st_size:
            return False
        if not file.samefile(other) and sha256(file) != sha256(other):
            return False
    return True
