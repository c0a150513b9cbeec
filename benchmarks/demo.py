"""The demo model in the forms that are measured, made once, in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from peers import Target

from ovfast.cache import cache_dir, cached_export


class CannotMakeError(Exception):
    """A form that cannot be made here; the message says why."""


def find(gguf: str | None) -> Path | None:
    """The demo model's GGUF file: `gguf`, what OVFAST_DEMO_MODEL names, or the cache's."""
    named = gguf or os.environ.get("OVFAST_DEMO_MODEL")
    return Path(named) if named else next(cache_dir().glob("demo/*.gguf"), None)


def as_gguf(gguf: Path) -> Target:
    """The file's own quantization: in OpenVINO's operations, and packed."""
    return Target("gguf", _stock(gguf), gguf, cached_export(gguf, progress=False))


def as_nncf(gguf: Path) -> Target:
    """Int4, as NNCF makes it; see nncf_model.py."""
    out = cache_dir() / "benchmarks" / f"{gguf.stem}-nncf"
    script = Path(__file__).with_name("nncf_model.py")
    # NNCF in this process would leave its threads and memory behind.
    _run(script, _stock(gguf), out)
    return Target("nncf", out)


FORMS: dict[str, Callable[[Path], Target]] = {"gguf": as_gguf, "nncf": as_nncf}


def _stock(gguf: Path) -> Path:
    out = cache_dir() / "benchmarks" / f"{gguf.stem}-stock"
    if not (out / "ovfast.json").exists():
        _run("-m", "ovfast", "export", gguf, "-o", out, "--no-pack")
    return out


def _run(*command: str | Path) -> None:
    child = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )
    if child.returncode:
        last = child.stderr.strip().splitlines()[-1:]
        raise CannotMakeError(f"{command[0]} {command[-1]}: {' '.join(last)}")
