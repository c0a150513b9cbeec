"""Reading a model directory as a graph of OpenVINO's own operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovfast.errors import ModelError
from ovfast.model_dir import ModelDir
from ovfast.quantize.expand import expand as expand_weights
from ovfast.quantize.expand import let_go_of_file
from ovfast.quantize.unfuse import unfuse

__all__ = ["read_stock"]


def read_stock(
    model_dir: str | Path,
    *,
    expand: bool = False,
    progress: Callable[[float, str], object] | None = None,
    scratch: Path | None = None,
) -> Any:
    """Read a model directory, stock or packed, as an `openvino.Model` in standard operations.

    Args:
        model_dir: A directory for which `ModelDir.check` finds no fault. The weights of a packed one
            come out as f16 in any case.
        expand: Turn compressed weights of a stock one into f16, too. Nothing else is rounded;
            weights in f32, f16 or bf16 stay as they are.
        progress: progress(fraction, what), now and then.
        scratch: A folder with space for the weights in f16, which then lie in nameless files there,
            as long as the model lives, and need little memory.

    Raises ModelError when it cannot be read.
    """
    import openvino as ov

    directory = ModelDir.check(model_dir)
    core = ov.Core()
    if directory.packed:
        from ovfast.ops import register

        register(core, gpu=False)
    try:
        model = core.read_model(directory.model_xml)
    except RuntimeError as error:
        raise ModelError(f"'{directory.model_xml}' cannot be read: {error}") from error
    replaced = unfuse(model, progress, scratch) if directory.packed else 0
    if expand:
        replaced += expand_weights(model, progress, scratch)
    if replaced:
        let_go_of_file(model)
    return model
