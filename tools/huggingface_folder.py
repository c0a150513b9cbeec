"""Make a Hugging Face folder with f16 weights of a GGUF file, as transformers reads it.

    python tools/huggingface_folder.py OUT [model.gguf]

Without a file it takes the demo model: a real model for what wants a folder and not a GGUF file, as
export through Optimum Intel. It needs the extra "torch", some minutes and gigabytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo_model import DEMO

from ovfast.cache import cache_dir
from ovfast.export.staging import Staging, locked


def make(gguf: Path, out: Path) -> Path:
    """Write the folder `out`, unless it is there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with locked(out, waiting=lambda: None):
        if (out / "config.json").exists():
            return out
        with Staging(out) as staging:
            place, name = str(gguf.parent), gguf.name
            model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float16)
            # What it holds are plain numbers now, but it remembers their source and refuses.
            model.hf_quantizer = None
            del model.config.quantization_config
            model.save_pretrained(staging.path)
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
            tokenizer.save_pretrained(staging.path)
            staging.commit()
    return out


def main() -> None:
    """Make it; print where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("gguf", type=Path, nargs="?", default=cache_dir() / "demo" / DEMO.file)
    arguments = parser.parse_args()
    print(make(arguments.gguf, arguments.out))


if __name__ == "__main__":
    main()
