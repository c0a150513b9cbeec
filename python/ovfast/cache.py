"""The cache: models that were exported or fetched once, in OVFAST_CACHE or ~/.cache/ovfast."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ovfast.errors import Error, ModelError

__all__ = ["cache_dir", "cached_export"]


def cache_dir() -> Path:
    """The cache's directory, which need not exist."""
    configured = os.environ.get("OVFAST_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path.home() / ".cache" / "ovfast"


def cached_export(
    gguf_path: str | Path, *, progress: bool = True, packed: bool = True, again: bool = False
) -> Path:
    """Return the model directory of a GGUF file, exported if it was not yet.

    The key is the file's content. It is hashed only when path, size and time of change are not
    those of a file seen before, so a second call costs next to nothing. `packed` and stock exports
    are kept side by side; `again` replaces what is there.

    Raises ModelError when the file cannot be converted, and Error, naming OVFAST_CACHE, when the
    cache cannot be written to.
    """
    from ovfast import _core
    from ovfast.export.gguf import export_gguf
    from ovfast.export.manifest import sha256
    from ovfast.model_dir import ModelDir

    source = Path(gguf_path).expanduser()
    try:
        status = source.stat()
    except OSError as error:
        raise ModelError(f"'{source}': {error.strerror}") from error
    form = "" if packed else "-stock"
    known_as = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:32] + form
    note = cache_dir() / "sources" / f"{known_as}.json"
    seen = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "tools": _tools()}
    if not again and (directory := _recall(note, seen)) is not None:
        try:
            return ModelDir.check(directory).path
        except ModelError:
            pass  # incomplete or gone: the export below repairs it

    _core.read_gguf_header(source)  # says at once what is wrong, before gigabytes are hashed
    _require_writable()
    digest = sha256(source)
    name = source.stem if source.suffix.lower() == ".gguf" else source.name
    directory = cache_dir() / "models" / f"{name}-{digest[:16]}{form}"
    try:
        export_gguf(source, directory, progress=progress, packed=packed, digest=digest, force=again)
    except ValueError:
        # What lies there was written by another version, or is damaged. It is ours to replace.
        export_gguf(source, directory, progress=progress, packed=packed, digest=digest, force=True)
    _remember(note, {**seen, "directory": directory.name})
    return directory


def _tools() -> list[str]:
    """What decides how an export turns out, beside the file."""
    from ovfast import _core

    return [_core.version(), _core.openvino_loaded_version()]


def _recall(note: Path, seen: dict[str, object]) -> Path | None:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or any(content.get(key) != seen[key] for key in seen):
        return None
    return cache_dir() / "models" / str(content.get("directory"))


def _remember(note: Path, content: dict[str, object]) -> None:
    partial = note.with_suffix(f".{os.getpid()}.partial")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(note)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _not_writable(error) from error


def _require_writable() -> None:
    """Find out before minutes of work are lost."""
    models = cache_dir() / "models"
    probe = models / f".writable-{os.getpid()}"
    try:
        models.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(error) from error


def _not_writable(error: OSError) -> Error:
    return Error(
        f"the cache '{cache_dir()}' cannot be written to ({error.strerror}). Set OVFAST_CACHE to a "
        "directory that can, or export the model yourself: ovfast export MODEL.gguf -o DIR"
    )
