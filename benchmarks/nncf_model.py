"""Makes the int4 model that a user of NNCF would run from a stock export of a GGUF model.

    python benchmarks/nncf_model.py EXPORT OUT

The weights are expanded to f16 first, as if they came from a full-precision checkpoint, and then
compressed as Optimum Intel does: int4 symmetric, groups of 128; embeddings and lm_head in int8.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ovfast
from ovfast.quantize.expand import compressed_weights

__all__ = ["compressed_weights", "make"]


def make(source: Path, out: Path) -> Path:
    """Write the int4 form of the stock directory `source` to `out`, unless it is there."""
    if not (out / "openvino_model.bin").exists():
        ovfast.quantize(source, out, "int4-g128", packed=False, force=True, progress=False)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="stock export: ovfast export --no-pack")
    parser.add_argument("out", type=Path, help="directory to write")
    arguments = parser.parse_args()
    print(make(arguments.source, arguments.out))


if __name__ == "__main__":
    main()
