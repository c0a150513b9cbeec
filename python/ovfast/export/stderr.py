"""Keeping a library's known messages off stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

from tqdm import tqdm

__all__ = ["HeldStderr"]

# Stderr belongs to the process: only one may hold it, or two would restore each other's.
_holder = threading.Lock()


class HeldStderr:
    """Holds back what the process writes to stderr, C++ included, and drops known lines of it.

    All else is passed on at every `released()` and at the end. While another thread holds stderr,
    nothing is done.
    """

    def __init__(self, *known: bytes) -> None:
        """Touch nothing yet. `known` are beginnings of lines to be dropped."""
        self._known = known
        self._stack = contextlib.ExitStack()
        self._real: int | None = None

    def __enter__(self) -> HeldStderr:
        """Hold."""
        self._hold()
        return self

    def __exit__(self, *exception: object) -> None:
        """Pass on."""
        self._release()

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Pass on what was held, and hold again after the block."""
        self._release()
        try:
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        if not _holder.acquire(blocking=False):
            return
        with contextlib.ExitStack() as stack:
            stack.callback(_holder.release)
            try:
                real = os.dup(2)
                stack.callback(os.close, real)
                held = stack.enter_context(tempfile.TemporaryFile())
            except OSError:  # closed, or no place for the file: messages go where they go
                return
            _flush()
            os.dup2(held.fileno(), 2)
            self._real, self._held = real, held
            self._stack = stack.pop_all()

    def _release(self) -> None:
        if self._real is None:
            return
        _flush()
        os.dup2(self._real, 2)
        self._real = None
        with self._stack:
            self._held.seek(0)
            lines = self._held.read().splitlines(keepends=True)
        rest = b"".join(line for line in lines if not line.startswith(self._known))
        if rest:
            # Takes progress bars away and draws them again below.
            with tqdm.external_write_mode(file=sys.stderr), open(2, "wb", closefd=False) as stderr:
                stderr.write(rest)


def _flush() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
