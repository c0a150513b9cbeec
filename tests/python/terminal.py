"""A program under a pseudo-terminal, typed at as a person would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import final

CTRL_C, CTRL_D = "\x03", "\x04"

# Makes stdin the controlling terminal, which Ctrl+C needs, and becomes the command.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@final
class Terminal:
    def __init__(
        self, command: list[str], *, env: dict[str, str], stdout: int | None = None
    ) -> None:
        self._master, slave = pty.openpty()

        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env={**env, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(slave)
        self._seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout: float = 30.0) -> str:
        """What was printed up to and including `text`; fails when it does not come."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout
        while wanted not in self._seen:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(
                    f"expected {text!r}, got {self._seen.decode(errors='replace')!r}"
                )
        end = self._seen.index(wanted) + len(wanted)
        found, self._seen = self._seen[:end], self._seen[end:]
        return found.decode(errors="replace")

    def wait(self, timeout: float = 30.0) -> tuple[int, str]:
        """The exit code and what was printed last."""
        deadline = time.monotonic() + timeout
        while self._read(max(deadline - time.monotonic(), 0.0)):
            pass
        code = self.process.wait(max(deadline - time.monotonic(), 0.1))
        return code, self._seen.decode(errors="replace")

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the program closed its side
            return False
        self._seen += data
        return bool(data)
