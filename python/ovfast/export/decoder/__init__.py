"""Export of a Hugging Face folder with a decoder, layer by layer.

The weights are read in pieces, rounded and written to their place in the .bin, so that memory stays
at a few pieces however large the model is. An export that was killed goes on at the layer where it
was. PyTorch is not needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovfast.export import ExportResult

__all__ = ["FAMILIES", "export_decoder", "is_decoder"]

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma3",
    "phi3",
)
"""Values of `model_type` in config.json that are written here."""


def is_decoder(folder: Path) -> bool:
    """Whether a folder holds safetensors of a family that is written here."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    known = isinstance(content, dict) and content.get("model_type") in FAMILIES
    return known and any(folder.glob("*.safetensors"))


def export_decoder(
    source: str | Path,
    out_dir: str | Path,
    *,
    weights: str = "int4",
    group_size: int | None = None,
    progress: bool = True,
    force: bool = False,
    packed: bool = True,
) -> ExportResult:
    """Write the model directory of a Hugging Face folder (config.json, *.safetensors, tokenizer).

    Args:
        source: The folder.
        out_dir: As in `ovfast.export.export`, which see.
        weights: How the numbers of linear layers are stored: int4 or int4-asym, a scale for each
            `group_size` columns, with embedding and lm_head as int8, a scale for each row (the
            usual recipe of Optimum Intel); int8 or int8-sym, all of them; or f16. Rounded to
            nearest; `ovfast.quantize` does better than that with f16.
        group_size: Of int4 weights, 128 by default; a power of two from 32 on. Where it divides no
            row a smaller one is taken, and `notes` of the result say so.
        progress: Show a bar on stderr if that is a terminal.
        force: Replace a model directory that holds something else.
        packed: Pack the weights for ovfast. Needs memory for the packed model; without, memory
            stays at a few pieces of layers.

    Raises:
        ModelError: The model cannot be used; the message names the tensor or the key of config.json.
        Error: It could not be written: no space, no permission.
        ValueError: Of options, or `out_dir` holds something else.
    """
    from ovfast.export.decoder.convert import convert

    return convert(
        Path(source).expanduser(),
        Path(out_dir).expanduser(),
        weights=weights,
        group_size=group_size,
        progress=progress,
        force=force,
        packed=packed,
    )
