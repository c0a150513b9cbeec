"""Export of a directory that holds a model in OpenVINO's form: checked and taken as it is."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ovfast.errors import Error, ModelError
from ovfast.export import ExportResult
from ovfast.export.manifest import NAME, read_manifest, sha256, step, write_manifest
from ovfast.export.staging import Staging, is_ours, locked
from ovfast.export.target import check_target
from ovfast.model_dir import ModelDir

__all__ = ["export_directory"]

# Where the file system has no links or the directories lie on two of them.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}


def export_directory(source: Path, out_dir: Path, *, force: bool = False) -> ExportResult:
    """Check a model directory and link or copy it to `out_dir`; see `ovfast.export.export`."""
    start = time.perf_counter()
    model = ModelDir.check(source)
    reused = True
    if not (out_dir.exists() and out_dir.samefile(source)):
        if source.resolve() in out_dir.resolve().parents:
            raise ValueError(f"'{out_dir}' lies inside of '{source}'; choose another directory")
        with locked(out_dir, waiting=lambda: None):
            reused = check_target(out_dir, force=force, is_same=lambda: _same(source, out_dir))
            if not reused:
                _take(source, out_dir)
    return ExportResult(
        model_dir=out_dir,
        source=source,
        reused=reused,
        seconds=time.perf_counter() - start,
        weights_bytes=model.weights_bytes,
    )


def _take(source: Path, out_dir: Path) -> None:
    with Staging(out_dir) as staging:
        try:
            for file in sorted(source.iterdir()):
                if file.is_file() and file.name != NAME and not is_ours(file.name):
                    _link_or_copy(file, staging.path / file.name)
            manifest = read_manifest(source)
            origin = manifest["source"] if manifest else _describe(source)
            steps = list(manifest["steps"]) if manifest else []
            steps.append(step("take", ("openvino",)))
            notes = manifest.get("notes", []) if manifest else []
            write_manifest(staging.path, source=origin, steps=steps, notes=notes)
            ModelDir.check(staging.path)
            staging.commit()
        except OSError as error:
            raise Error(f"cannot write '{out_dir}': {error.strerror}") from error


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file.resolve(), target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(file, target)


def _describe(source: Path) -> dict[str, Any]:
    return {
        "kind": "openvino",
        "directory": source.resolve().name,
        "bytes": (source / "openvino_model.bin").stat().st_size,
        "sha256": sha256(source / "openvino_model.bin"),
    }


def _same(source: Path, out_dir: Path) -> bool:
    """Whether `out_dir` is a whole copy of `source`."""
    try:
        ModelDir.check(out_dir)
    except ModelError:
        return False
    for file in source.iterdir():
        if not file.is_file() or file.name == NAME or is_ours(file.name):
            continue
        other = out_dir / file.name
        if not other.is_file() or file.stat().st_size != other.stat().st_size:
            return False
        if not file.samefile(other) and sha256(file) != sha256(other):
            return False
    return True
