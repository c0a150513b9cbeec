"""Writing a model directory so that it is there whole or not at all.

One export of a directory runs at a time, guarded by a file lock. A directory that is not there yet
is written as a hidden sibling, brought to disk and renamed. One that is there stays the one it is
(it may be a mount point, or somebody's working directory, in a parent that cannot be written to):
lock and hidden directory lie inside of it, and the files are moved one by one at the end, with
openvino_model.xml, without which nothing takes it for a model, and ovfast.json last.

A process that is killed leaves its hidden directory behind. The next export of the same directory
removes it, or goes on moving where that had begun. Long exports keep what they can resume in a
hidden directory of its own, which only another kind of export removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from ovfast.errors import Error

__all__ = ["Staging", "is_ours", "locked", "resumable"]

# In the order in which an export goes through them: being written; complete and on disk; moving.
_PARTIAL, _COMPLETE, _MOVING = ".ovfast-partial", ".ovfast-complete", ".ovfast-moving"
_LOCK = ".ovfast-lock"
_RESUMABLE = ".ovfast-resume"

_LAST = ("openvino_model.xml", "ovfast.json")

# What an older model may consist of, so that none of it is taken for a part of the new one.
_MODEL_FILES = (
    *("openvino_*", "ovfast.json", "config.json", "generation_config.json", "chat_template.*"),
    *("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)


def is_ours(name: str) -> bool:
    """Whether a file of this name in a model directory belongs to an export in progress."""
    return name in (_LOCK, _PARTIAL, _COMPLETE, _MOVING, _RESUMABLE)


def resumable(target: Path) -> Path:
    """Where an export of `target` keeps what it goes on with after it was killed."""
    target = target.resolve()
    return _hidden(target, _RESUMABLE, inside=target.is_dir())


@contextlib.contextmanager
def locked(target: Path, waiting: Callable[[], None], *, resumes: bool = False) -> Iterator[None]:
    """Hold the lock of a directory that is to be written, cleared up behind a killed process.

    Args:
        target: The directory, which need not exist. Its parents are created.
        waiting: Called once when somebody else holds the lock.
        resumes: Keep `resumable(target)`.

    Raises Error when the place cannot be written to.
    """
    target = target.resolve()
    created = _create_parents(target)
    try:
        lock, lock_path = _lock(target, waiting)
    except BaseException as error:
        _remove_empty(created)
        if isinstance(error, OSError):
            place = target if target.is_dir() else target.parent
            raise Error(f"cannot write to '{place}': {error.strerror}") from error
        raise
    try:
        try:
            _repair(target)
            if not resumes and resumable(target).exists():
                shutil.rmtree(resumable(target))
        except OSError as error:
            raise Error(
                f"cannot clear up what an export that was cut off left in '{target}': "
                f"{error.strerror}"
            ) from error
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
        self._inside = self._target.is_dir()
        self.path = _hidden(self._target, _PARTIAL, inside=self._inside)
        """Where to write."""

    def __enter__(self) -> Staging:
        """Create the hidden directory."""
        try:
            self.path.mkdir()
        except OSError as error:
            raise Error(f"cannot create '{self.path}': {error.strerror}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the hidden directory, if it was not committed."""
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(self) -> None:
        """Bring everything to disk and put it in the place of `target`.

        In a directory that is there, files of an older model go, and all others stay.
        """
        for file in self.path.iterdir():
            _sync(file)
        _sync(self.path)
        if self._inside:
            # From here on the new model will come, even if this process is killed.
            self.path.rename(self._target / _COMPLETE)
            _sync(self._target)
            _finish(self._target)
        else:
            # Fails if somebody put something there meanwhile.
            self.path.rename(self._target)
            _sync(self._target.parent)


def _repair(target: Path) -> None:
    """Finish or undo what a killed process left."""
    inside = target.is_dir()
    partial = _hidden(target, _PARTIAL, inside=inside)
    if partial.exists():
        shutil.rmtree(partial)
    if inside:
        _finish(target)


def _finish(target: Path) -> None:
    """Move complete files into their directory, which at no moment looks whole before it is.

    Can be cut off anywhere, and be called again.
    """
    complete, moving = target / _COMPLETE, target / _MOVING
    if complete.exists():
        for name in reversed(_LAST):
            (target / name).unlink(missing_ok=True)
        _sync(target)
        for file in target.iterdir():
            if _is_of_model(file.name) and (file.is_symlink() or not file.is_dir()):
                file.unlink()
        complete.rename(moving)
        _sync(target)
    if moving.exists():
        names = {file.name for file in moving.iterdir()}
        for name in sorted(names.difference(_LAST)):
            (moving / name).rename(target / name)
        for name in _LAST:
            _sync(target)
            if name in names:
                (moving / name).rename(target / name)
        moving.rmdir()
        _sync(target)


def _is_of_model(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _MODEL_FILES)


def _hidden(target: Path, name: str, *, inside: bool) -> Path:
    return target / name if inside else target.parent / f".{target.name}{name}"


def _lock(target: Path, waiting: Callable[[], None]) -> tuple[int, Path]:
    """Lock the directory if it is there, else its name; both never at once."""
    told = False

    def wait() -> None:
        nonlocal told
        if not told:
            waiting()
            told = True

    while True:
        inside = target.is_dir()
        path = _hidden(target, _LOCK, inside=inside)
        try:
            lock = _acquire(path, wait)
        except FileNotFoundError:
            if not inside:
                raise
            continue  # the directory went meanwhile
        if target.is_dir() == inside:
            return lock, path
        # It came, or went, while we waited.
        path.unlink(missing_ok=True)
        os.close(lock)


def _acquire(path: Path, waiting: Callable[[], None]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
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
