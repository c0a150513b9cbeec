"""From a model in another form to a model directory."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovfast.errors import ModelError

__all__ = ["ExportResult", "export"]


@dataclass(frozen=True)
class ExportResult:
    """What an export did."""

    model_dir: Path
    source: Path
    reused: bool
    """The directory held this very model already, and nothing was written."""
    seconds: float
    weights_bytes: int
    """Size of openvino_model.bin."""
    packed: bool = False
    """It runs on ovfast's operations on packed weights, which other programs lack."""
    tensor_types: dict[str, int] = field(default_factory=dict)
    """Of a GGUF file: tensor type -> bytes stored in it."""
    notes: list[str] = field(default_factory=list)
    """What the conversion changed about the weights."""


def export(
    source: str | Path,
    out_dir: str | Path,
    *,
    progress: bool = True,
    force: bool = False,
    packed: bool = True,
) -> ExportResult:
    """Make a model directory of a GGUF file, or of a directory that Optimum Intel wrote.

    The model appears whole or not at all. A directory that is there already stays the one it is, so
    that it may be a mount point or the current directory. When it holds this very model already, nothing is
    done. Two exports to one directory at once run one after the other.

    Args:
        source: A GGUF file, whatever its name, or a directory with openvino_model.xml and
            tokenizers, whose other files are linked or copied.
        out_dir: The model directory. It must not exist, be empty, hold this very model, or be
            `source` itself, which then is only checked.
        progress: Show a bar on stderr if that is a terminal.
        force: Replace a model directory that holds something else. Files in it that are no part
            of a model stay.
        packed: Pack the weights for ovfast, which then loads and runs them fastest. Otherwise the
            directory holds OpenVINO's own operations, which OpenVINO GenAI runs too.

    Raises:
        ModelError: The source cannot be used; the message says why and what to do.
        Error: It could not be written: no space, no permission.
        ValueError: `out_dir` holds something else, and `force` is not given or would delete what is
            not a model directory.
    """
    source, out_dir = Path(source).expanduser(), Path(out_dir).expanduser()
    if not source.exists():
        raise ModelError(f"'{source}' does not exist")
    if source.is_dir():
        from ovfast.export.directory import export_directory

        return export_directory(source, out_dir, progress=progress, force=force, packed=packed)
    from ovfast.export.gguf import export_gguf

    return export_gguf(source, out_dir, progress=progress, force=force, packed=packed)


class _CallableModule(types.ModuleType):
    """`ovfast.export` is the function and this package: whoever imports a part of it sets the name.

    So the package can be called, too.
    """

    def __call__(self, *arguments: Any, **options: Any) -> ExportResult:
        return export(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
