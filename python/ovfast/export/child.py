"""Child processes of an export that run other interpreters: watched, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ovfast.errors import Error

__all__ = ["run_child"]

_POLL_SECONDS = 0.2
_SHOWN_LINES = 15
_GUARD = Path(__file__).with_name("guard.py")


def run_child(
    python: Path,
    arguments: list[str],
    what: str,
    *,
    verbose: bool = False,
    poll: Callable[[list[str]], None] = lambda lines: None,
) -> None:
    """Run a script or `-m` a module with another interpreter, and wait.

    It sees none of this process's packages: PYTHONPATH and the like do not reach it. It and all
    that it started end when this function is left, and when this process is killed.

    Args:
        python: The interpreter.
        arguments: The script's path, or `-m` and a module, and what it takes.
        what: What it does, for messages: "installing Optimum Intel".
        verbose: Show its output on stderr as it comes. Otherwise the last lines go into the Error.
        poll: Called a few times a second with the lines of output so far; none if `verbose`.

    Raises Error when it fails.
    """
    # A file, not a pipe, so that a chatty child never waits for us to read.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(python), "-I", str(_GUARD), *arguments],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno() if verbose else log,
            stderr=None if verbose else log,
            start_new_session=True,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(_POLL_SECONDS)
                    break
                poll(_lines(log.fileno()))
        finally:
            # Also after it ended: what it started may still run.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        if code != 0:
            raise Error(_describe(what, code, _lines(log.fileno())))


def _lines(descriptor: int) -> list[str]:
    # pread: the child writes where the file's position is, which is ours, too.
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return content.decode("utf-8", "replace").splitlines()


def _describe(what: str, code: int, lines: list[str]) -> str:
    shown = "\n  ".join(line.rstrip() for line in lines if line.strip()[:1])
    tail = "\n  ".join(shown.splitlines()[-_SHOWN_LINES:]).strip()
    reason = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        reason += ", which is how the system ends a process when memory runs out"
    return f"{what} failed ({reason})" + (f":\n  {tail}" if tail else "")
