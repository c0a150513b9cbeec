"""Texts to calibrate and to measure with: a person's own, or what comes with Python."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovfast.chat_template import ChatTemplate

__all__ = ["PYTHON_MODULES", "is_jsonl", "read_jsonl", "read_texts"]

PYTHON_MODULES = (
    *("argparse", "ast", "calendar", "collections", "configparser", "csv", "dataclasses"),
    *("datetime", "decimal", "difflib", "doctest", "email.message", "enum", "fractions", "ftplib"),
    *("functools", "heapq", "http.client", "inspect", "ipaddress", "json.decoder", "logging"),
    *("mailbox", "optparse", "os", "pathlib", "pickle", "platform", "random", "shutil", "smtplib"),
    *("socket", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap"),
    *("threading", "tokenize", "traceback", "typing", "unittest.case", "unittest.mock"),
    *("urllib.parse", "urllib.request", "uuid", "zipfile"),
)
"""Modules of the standard library, in Python itself and large enough to be cut."""

_JSONL = (".jsonl", ".ndjson")
_SHORTEST_TOPIC = 1000


def read_texts(
    path: str | Path | None = None, *, chat_template: ChatTemplate | None = None
) -> list[str]:
    """Read texts, in a fixed order; none of them is empty.

    Args:
        path: A text file (UTF-8): one text. A .jsonl or .ndjson file: one a line, from "text", or
            "prompt", or "messages". A folder: all of that, the files below it sorted by path;
            hidden ones and those that are not UTF-8 are left out. None: documentation and sources
            that come with Python, in turn.
        chat_template: Renders "messages". Without one their contents are joined by blank lines.

    Raises:
        ValueError: There is no such file, no text in it, or a line is malformed (its number is
            said).
    """
    if path is None:
        return _python_texts()
    path = Path(path)
    if not path.exists():
        raise ValueError(f"'{path}' does not exist: expected a text file, a folder or a JSONL file")
    try:
        if path.is_dir():
            texts = [text for file in _files(path) for text in _of_file(file, chat_template, True)]
        else:
            texts = list(_of_file(path, chat_template, False))
    except OSError as error:
        raise ValueError(f"'{error.filename}' cannot be read: {error.strerror}") from error
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"'{path}' holds no text: expected UTF-8 text or JSON lines")
    return texts


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a file of JSON objects, one a line; blank lines are skipped.

    Raises ValueError, with the line's number, for what is not such an object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise ValueError(f"'{path}', line {number} is not JSON: {error}") from error
        if not isinstance(item, dict):
            raise ValueError(  # noqa: TRY004 (what a file holds, not a type in a program)
                f"'{path}', line {number}: expected an object, got {type(item).__name__}"
            )
        yield number, item


def is_jsonl(path: Path) -> bool:
    """Whether a file holds JSON lines, by its name."""
    return path.suffix.lower() in _JSONL


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _of_file(file: Path, template: ChatTemplate | None, one_of_many: bool) -> Iterator[str]:
    if is_jsonl(file):
        for number, item in read_jsonl(file):
            yield _of_object(item, f"'{file}', line {number}", template)
        return
    data = file.read_bytes()
    try:
        # What is not text may be valid UTF-8, but has zeros.
        if b"\0" in data:
            raise ValueError("it holds zero bytes")
        yield data.decode("utf-8")
    except ValueError as error:
        if not one_of_many:
            raise ValueError(f"'{file}' is not UTF-8 text: {error}") from error


def _of_object(item: dict[str, Any], where: str, template: ChatTemplate | None) -> str:
    for key in ("text", "prompt"):
        if key in item:
            if not isinstance(item[key], str):
                raise ValueError(f"{where}: {key!r} must be text, got {type(item[key]).__name__}")
            return str(item[key])
    messages = item.get("messages")
    if messages is None:
        raise ValueError(
            f"{where}: expected one of 'text', 'prompt', 'messages', got {sorted(item)}"
        )
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("content"), str)
        for message in messages
    ):
        raise ValueError(
            f"{where}: 'messages' must be a list of objects whose 'content' is text, "
            f"got {str(messages)[:80]}"
        )
    if template is None:
        return "\n\n".join(message["content"] for message in messages)
    try:
        return template.render(messages, add_generation_prompt=False)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _python_texts() -> list[str]:
    from pydoc_data.topics import topics

    documents = [text for _, text in sorted(topics.items()) if len(text) >= _SHORTEST_TOPIC]
    sources = [inspect.getsource(import_module(name)) for name in PYTHON_MODULES]
    pairs = zip_longest(documents, sources)
    return [text for pair in pairs for text in pair if text is not None]
