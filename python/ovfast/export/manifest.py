"""ovfast.json: where a model directory came from and what was done to it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovfast.errors import Error, ModelError

__all__ = ["FORMAT", "NAME", "BackgroundHash", "read_manifest", "sha256", "step", "write_manifest"]

NAME = "ovfast.json"
FORMAT = 1
"""Grows when readers of an older version would misunderstand the file."""

_CHUNK = 1 << 20


def step(name: str, tools: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Describe a step: its name, its options, and the versions of the packages that did it."""
    versions = {}
    for tool in ("ovfast", *tools):
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            versions[tool] = "unknown"
    return {"name": name, "options": options, "tools": versions}


def write_manifest(
    directory: Path,
    *,
    source: dict[str, Any],
    steps: list[dict[str, Any]],
    notes: Sequence[str] = (),
) -> None:
    """Write the manifest of a model directory; `notes` are what a person should know about it."""
    content = {"format": FORMAT, "source": source, "steps": steps, "notes": list(notes)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / NAME).write_text(text, encoding="utf-8")


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """Read the manifest of a model directory; None when it has none.

    Raises ModelError when it cannot be understood.
    """
    path = directory / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("source"), dict):
        raise ModelError(f"'{path}' is not an ovfast manifest")
    if content.get("format") != FORMAT:
        raise ModelError(
            f"'{path}' has format {content.get('format')!r}, this ovfast reads {FORMAT}. "
            "Upgrade ovfast, or export the model again."
        )
    return content


def sha256(file: Path, cancelled: threading.Event | None = None) -> str:
    """Hash a file. Raises Error when it cannot be read or when `cancelled` was set."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                if cancelled is not None and cancelled.is_set():
                    raise Error(f"hashing '{file}' was cancelled")
    except OSError as error:
        raise Error(f"'{file}' cannot be read: {error.strerror}") from error
    return digest.hexdigest()


class BackgroundHash:
    """The sha256 of a file, computed beside other work."""

    def __init__(self, file: Path) -> None:
        """Begin."""
        self._cancelled = threading.Event()
        self._outcome: str | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(file,), daemon=True)
        self._thread.start()

    def result(self) -> str:
        """Wait for the hash. Raises Error when the file could not be read."""
        self._thread.join()
        if isinstance(self._outcome, str):
            return self._outcome
        raise self._outcome or Error("the hash was not computed")

    def cancel(self) -> None:
        """Stop soon; the result is not wanted any more."""
        self._cancelled.set()
        self._thread.join()

    def _run(self, file: Path) -> None:
        try:
            self._outcome = sha256(file, self._cancelled)
        except Error as error:
            self._outcome = error
