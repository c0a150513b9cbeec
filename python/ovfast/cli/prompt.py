"""Reading a person's lines, with editing and history, or a pipe's."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import TracebackType
from typing import final

import click

__all__ = ["LineReader"]

_HISTORY_LINES = 1000


@final
class LineReader:
    """Messages from stdin, one a line; a line that ends with a backslash goes on in the next.

    On a terminal the standard library's readline edits lines and remembers them between runs.
    """

    def __init__(self, interactive: bool) -> None:
        """Make a reader; `interactive` when stdin is a terminal."""
        self._interactive = interactive
        self._history: Path | None = None
        self._lines_read = 0
        self.typed = False
        """Whether the last read() was interrupted after something had been typed."""

    def __enter__(self) -> LineReader:
        """Load the history."""
        if self._interactive:
            self._load_history()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Store the history."""
        if self._history is not None:
            self._store_history(self._history)

    def read(self) -> str | None:
        """The next message; None at the end of the input.

        Raises ValueError for what is not UTF-8, and KeyboardInterrupt on Ctrl+C.
        """
        lines: list[str] = []
        self.typed = False
        while True:
            try:
                line = self._line("... " if lines else ">>> ")
            except KeyboardInterrupt:
                self.typed = bool(lines) or bool(self._unfinished_line())
                raise
            if line is None:
                return "\n".join(lines) if lines else None
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _line(self, prompt: str) -> str | None:
        if not self._interactive:
            return self._line_of_a_pipe()
        try:
            if sys.stdout.isatty():
                line = input(prompt)
            else:
                # input() would write the prompt to stdout, among the answers.
                click.echo(prompt, nl=False, err=True)
                line = input()
        except EOFError:
            return None
        return line

    def _unfinished_line(self) -> str:
        # Without readline, or beside it, the terminal itself holds the line, and nobody can ask.
        if self._history is None or not sys.stdout.isatty():
            return ""
        import readline

        return readline.get_line_buffer()

    def _line_of_a_pipe(self) -> str | None:
        data = sys.stdin.buffer.readline()
        if not data:
            return None
        self._lines_read += 1
        try:
            return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"line {self._lines_read} of stdin is not valid UTF-8: {error.reason} "
                f"at byte {error.start}"
            ) from error

    def _load_history(self) -> None:
        try:
            import readline
        except ImportError:  # some builds of Python have none; input() works without
            return
        from ovfast.cache import cache_dir

        self._history = cache_dir() / "chat_history"
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):  # the first run has none
            readline.read_history_file(self._history)

    def _store_history(self, file: Path) -> None:
        import readline

        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)  # what people write to a model is theirs alone
            readline.write_history_file(file)
        except OSError as error:
            click.echo(f"The history of your lines was not saved: {error}", err=True)
