"""What may be written over, and writing there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ovfast.errors import Error
from ovfast.export.manifest import NAME
from ovfast.export.staging import Staging, is_ours, locked

__all__ = ["check_target", "written_directory"]


def check_target(out_dir: Path, *, force: bool, is_same: Callable[[], bool]) -> bool:
    """Say whether a directory holds the wanted model already; False if it is to be written.

    Args:
        out_dir: The directory to be written.
        force: It may be replaced if it is a model directory.
        is_same: Tells whether a non-empty directory holds the wanted model. Not asked under `force`.

    Raises ValueError when it must not be written over.
    """
    if not out_dir.exists():
        return False
    if not out_dir.is_dir():
        raise ValueError(f"'{out_dir}' is not a directory")
    # A file system that was just made has a lost+found.
    if all(is_ours(file.name) or file.name == "lost+found" for file in out_dir.iterdir()):
        return False
    if not (out_dir / "openvino_model.xml").exists() and not (out_dir / NAME).exists():
        raise ValueError(
            f"'{out_dir}' holds files that are not a model directory; choose another directory"
        )
    if force:
        return False
    if is_same():
        return True
    raise ValueError(
        f"'{out_dir}' holds another model, or one from another version or an unfinished export; "
        "replace it with --force (force=True) or choose another directory"
    )


@contextlib.contextmanager
def written_directory(
    out_dir: Path,
    *,
    force: bool,
    is_same: Callable[[], bool] = lambda: False,
    waiting: Callable[[], None] = lambda: None,
    resumes: bool = False,
) -> Iterator[Path | None]:
    """Let a block write a directory, which appears whole after it, or not at all if it raises.

    Args:
        out_dir: As for `check_target`.
        force: As for `check_target`.
        is_same: As for `check_target`.
        waiting: Called once when somebody else writes the directory.
        resumes: The block goes on with what lies in `resumable(out_dir)`.

    Yields the folder to write to; None when there is nothing to do, since `is_same` says so.

    Raises ValueError as `check_target`, Error when the directory cannot be written.
    """
    with locked(out_dir, waiting, resumes=resumes):
        if check_target(out_dir, force=force, is_same=is_same):
            yield None
            return
        try:
            with Staging(out_dir) as staging:
                yield staging.path
                staging.commit()
        except OSError as error:
            raise Error(f"cannot write '{out_dir}': {error.strerror or error}") from error
