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
    quality: dict[str, Any] | None = None
    """What is known of how well it says what the original says: of `verify`, under "verify"."""


def export(
    source: str | Path,
    out_dir: str | Path,
    *,
    progress: bool = True,
    force: bool = False,
    packed: bool = True,
    weights: str | None = None,
    group_size: int | None = None,
    via: str = "auto",
    task: str | None = None,
    verify: bool = False,
    isolated: bool = True,
    trust_remote_code: bool = False,
    revision: str | None = None,
    verbose: bool = False,
) -> ExportResult:
    """Make a model directory of a GGUF file, a Hugging Face folder or one that Optimum Intel wrote.

    The model appears whole or not at all. A directory that is there already stays the one it is, so
    that it may be a mount point or the current directory. When it holds this very model already, nothing is
    done. Two exports to one directory at once run one after the other.

    Args:
        source: A GGUF file, whatever its name; a Hugging Face folder with config.json, safetensors
            and tokenizer, or the id of one on a hub (organisation/name), which is downloaded; or a
            directory with openvino_model.xml and tokenizers, whose other files are linked or copied.
        out_dir: The model directory. It must not exist, be empty, hold this very model, or be
            `source` itself, which then is only checked.
        progress: Show a bar on stderr if that is a terminal.
        force: Replace a model directory that holds something else. Files in it that are no part
            of a model stay.
        packed: Pack the weights for ovfast, which then loads and runs them fastest. Otherwise the
            directory holds OpenVINO's own operations, which OpenVINO GenAI runs too.
        weights: Of a Hugging Face folder: int4 (the default), int4-asym, int8, int8-sym or f16;
            see `ovfast.export.decoder.export_decoder`.
        group_size: Columns that share a scale of int4 weights, 128 by default.
        via: How a Hugging Face folder is exported: "direct", layer by layer, for the families in
            `ovfast.export.decoder.FAMILIES`; "optimum", by Optimum Intel, which knows more of them
            and needs memory for the whole model; or "auto", direct where that is possible.
        task: What a Hugging Face folder is for, for Optimum; see `export_huggingface`, also for
            those that follow.
        verify: Run a folder's original in f32 and compare; the outcome is in `quality`.
        isolated: Run Optimum and the original in an environment of their own.
        trust_remote_code: Let Optimum run Python code that lies in the folder.
        revision: Branch, tag or commit of a model of a hub.
        verbose: Show the output of pip and Optimum.

    Raises:
        ModelError: The source cannot be used; the message says why and what to do.
        Error: It could not be written: no space, no permission.
        ValueError: `out_dir` holds something else, and `force` is not given or would delete what is
            not a model directory; or an option is not for this kind of source.
    """
    from ovfast.export import hub
    from ovfast.export.route import choose

    out_dir = Path(out_dir).expanduser()
    if hub.is_hub_id(source):
        source = hub.fetch(str(source), revision=revision, with_code=trust_remote_code)
    elif revision is not None:
        raise ValueError(f"revision is for a model of a hub, and '{source}' is a path")
    source = Path(source).expanduser()
    if not source.exists():
        raise ModelError(f"'{source}' does not exist")
    route = choose(source, via, task=task)
    if route == "optimum":
        from ovfast.export.huggingface import export_huggingface

        return export_huggingface(
            source,
            out_dir,
            task=task,
            weights=weights,
            group_size=group_size,
            packed=packed,
            verify=verify,
            isolated=isolated,
            trust_remote_code=trust_remote_code,
            progress=progress,
            verbose=verbose,
            force=force,
        )
    if route == "direct":
        from ovfast.export.decoder import export_decoder

        weights = weights or "int4"
        result = export_decoder(
            source,
            out_dir,
            weights=weights,
            group_size=group_size,
            progress=progress,
            force=force,
            packed=packed,
        )
        if verify:
            from ovfast.export.huggingface import verify_export

            result = verify_export(
                result, weights, isolated=isolated, progress=progress, verbose=verbose
            )
        return result
    for name, value in (("weights", weights), ("group_size", group_size), ("verify", verify)):
        if value not in (None, False):
            raise ValueError(
                f"{name} is for Hugging Face folders (config.json and *.safetensors); "
                f"'{source}' is none"
            )
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
