"""What `ovfast tune` found out about a model on this machine: stored once, applied at each load."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ovfast import _core
from ovfast.cache import cache_dir
from ovfast.errors import Error
from ovfast.model_dir import ModelDir

__all__ = [
    "PRECISION_HINT",
    "apply_tuning",
    "identity",
    "read_tuning",
    "require_writable",
    "tuning_path",
    "write_tuning",
]

PRECISION_HINT = "INFERENCE_PRECISION_HINT"

_FORMAT = 1  # of the file; grows when its meaning changes
# Properties by which a caller decides what was tuned.
_DECIDED_BY = {
    "INFERENCE_NUM_THREADS": "num_threads",
    PRECISION_HINT: "inference_precision",
    "EXECUTION_MODE_HINT": "inference_precision",
}


def identity(model: ModelDir) -> dict[str, Any]:
    """Describe what a choice holds for: the processor, the versions and the model's graph."""
    host = _core.read_host_limits()
    return {
        "cpu": host.cpu_name,
        "threads": host.threads,
        "isa": host.isa,
        "ovfast": _core.version(),
        "openvino": _core.openvino_loaded_version(),
        "model_xml": hashlib.sha256(model.model_text).hexdigest(),
    }


def tuning_path(model: ModelDir) -> Path:
    """Where this machine's choice for a model is stored, whether there is one or not."""
    return cache_dir() / "tuning" / f"{_digest(identity(model))}.json"


def read_tuning(model: ModelDir) -> dict[str, Any] | None:
    """Read what was stored for a model; None when it was not tuned, or, with a warning, damaged."""
    path = tuning_path(model)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT:
            raise ValueError(f"its format is {stored['format']}, expected {_FORMAT}")
        tuning = stored["tuning"]
        # The key in the file's name says that it fits, the sum that it is what was written.
        if _digest(tuning) != stored["sha256"]:
            raise ValueError("its contents do not fit its checksum")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        warnings.warn(
            f"the tuning in '{path}' cannot be used: {what}. The defaults hold; tune the model again "
            "(ovfast tune), or delete the file.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    assert isinstance(tuning, dict)
    return tuning


def write_tuning(model: ModelDir, tuning: Mapping[str, Any]) -> Path:
    """Store a choice, whole or not at all. Raises Error when the cache cannot be written to."""
    path = tuning_path(model)
    stored = {"format": _FORMAT, "sha256": _digest(tuning), "tuning": tuning}
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial")
    try:
        require_writable()
        partial.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise _not_writable(error) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def require_writable() -> None:
    """Find out before anything is measured. Raises Error."""
    folder = cache_dir() / "tuning"
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(error) from error


def apply_tuning(
    model: ModelDir, options: _core.EngineOptions, given: Iterable[str]
) -> dict[str, Any] | None:
    """Set the options that were chosen for a model and that the caller did not give.

    Args:
        model: The model to be loaded.
        options: The options to set.
        given: Names of the options that the caller gave; what his properties say counts too.

    Returns what was stored, with the options that were set under "applied"; None when nothing is
    stored, or when the model is to run on other operations than those that were measured.
    """
    if options.packed != "auto" or options.activation_precision != "int8":
        return None
    tuning = read_tuning(model)
    if tuning is None:
        return None
    properties = dict(options.properties)
    decided = {*given, *(_DECIDED_BY[name] for name in properties if name in _DECIDED_BY)}
    applied = {name: value for name, value in tuning["options"].items() if name not in decided}
    for name, value in applied.items():
        if name == "inference_precision":
            options.properties = {**properties, PRECISION_HINT: value}
        else:
            setattr(options, name, value)
    return {**tuning, "applied": applied}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _not_writable(error: OSError) -> Error:
    return Error(
        f"the tuning cannot be stored in '{cache_dir() / 'tuning'}' ({error.strerror}). Set "
        "OVFAST_CACHE to a directory that can be written to"
    )
