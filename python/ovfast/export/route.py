"""Which exporter a source goes to."""

from __future__ import annotations

from pathlib import Path

__all__ = ["VIA", "choose"]

VIA = ("auto", "direct", "optimum")
_TEXT_GENERATION = (None, "text-generation", "text-generation-with-past")


def choose(source: Path, via: str, *, task: str | None) -> str | None:
    """Say which exporter takes a Hugging Face folder: "direct" or "optimum"; None for other sources.

    Args:
        source: What is to be exported, which exists.
        via: One of VIA: what was asked for.
        task: What the folder is for, if that was said.

    Raises ValueError when what was asked for is not for this source.
    """
    from ovfast.export.decoder import FAMILIES, is_decoder
    from ovfast.export.huggingface import is_folder

    if via not in VIA:
        raise ValueError(f"via must be one of {', '.join(VIA)}, got '{via}'")
    if not source.is_dir() or (source / "openvino_model.xml").exists() or not is_folder(source):
        if via != "auto" or task is not None:
            option = f"via '{via}'" if via != "auto" else f"task '{task}'"
            raise ValueError(
                f"{option} is for Hugging Face folders (config.json and *.safetensors); "
                f"'{source}' is none"
            )
        return None
    direct = is_decoder(source) and task in _TEXT_GENERATION
    if via == "direct" and not direct:
        raise ValueError(
            f"via 'direct' is for text generation with one of {', '.join(FAMILIES)} in "
            f"safetensors; '{source}' is none of these: use via 'optimum'"
        )
    return "direct" if direct and via != "optimum" else "optimum"
