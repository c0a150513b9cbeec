"""Writing a model directory so that it is there whole or not at all.

One export of a directory runs at a time, guarded by a file lock beside it. Everything is written
into a hidden sibling, brought to disk and renamed. A process that is killed leaves that sibling
behind, and the next export of the same directory removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ovfast.errors import Error

__all__ = ["Staging", "locked"]


@contextlib.contextmanager
def locked(target: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a directory that is to be written.

    Args:
        target: The directory, which need not exist. Its parents are created.
        waiting: Called once when somebody else holds the lock.

    Raises Error when the place cannot be written to.
    """
    target = target.resolve()
    lock_path = _sibling(target, "lock")
    created = _create_parents(target)
    try:
        lock = _acquire(lock_path, waiting)
    except BaseException as error:
        _remove_empty(created)
        if isinstance(error, OSError):
            raise Error(f"cannot write to '{target.parent}': {error.strerror}") from error
        raise
    try:
        yield
    finally:
        # Removed while it is still held: whoever waits for it notices and takes the new one.
        lock_path.unlink(missing_ok=True)
        os.close(lock)
        if not target.exists():
            _remove_empty(created)


class Staging:
    """The hidden directory in which the content of `target` comes into being.

    To be used under `locked(target)`. Leaving the block without `commit()` removes it.
    """

    def __init__(self, target: Path) -> None:
        """Touch nothing yet."""
        # Resolved: "." has no name to derive others from, and a symbolic link is not to be replaced.
        self._target = target.resolve()
        self._old = _sibling(self._target, "old")
        self.path = _sibling(self._target, "partial")
        """Where to write."""

    def __enter__(self) -> Staging:
        """Create the hidden directory, after clearing up behind a killed process."""
        self._repair()
        try:
            self.path.mkdir()
        except OSError as error:
            raise Error(f"cannot create '{self.path}': {error.strerror}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the hidden directory, if it was not committed."""
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(self) -> None:
        """Bring everything to disk and put it in the place of `target`."""
        for file in self.path.iterdir():
            _sync(file)
        _sync(self.path)
        # An empty directory is replaced by the rename itself.
        if self._target.exists() and any(self._target.iterdir()):
            self._target.rename(self._old)
        try:
            self.path.rename(self._target)
        except BaseException:
            self._repair()
            raise
        _sync(self._target.parent)
        shutil.rmtree(self._old, ignore_errors=True)

    def _repair(self) -> None:
        """Finish or undo what a killed process left."""
        if self._old.exists():
            if self._target.exists():
                shutil.rmtree(self._old)
            else:
                self._old.rename(self._target)
        if self.path.exists():
            shutil.rmtree(self.path)


def _sibling(target: Path, kind: str) -> Path:
    return target.parent / f".{target.name}.ovfast-{kind}"


def _acquire(path: Path, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The holder removed the file while we waited for it.
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _create_parents(target: Path) -> list[Path]:
    """Create the missing parents; return them, innermost first."""
    missing = []
    for parent in target.parents:
        if parent.exists():
            break
        missing.append(parent)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise Error(f"cannot create '{target.parent}': {error.strerror}") from error
    return missing


def _remove_empty(directories: list[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
