"""What may be written over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ovfast.export.manifest import NAME
from ovfast.export.staging import is_ours

__all__ = ["check_target"]


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
