"""Makes the int4 model that a user of NNCF would run from a stock export of a GGUF model.

    python benchmarks/nncf_model.py EXPORT OUT

The weights are expanded to f16 first, as if they came from a full-precision checkpoint, and then
compressed as Optimum Intel does: int4 symmetric, groups of 128; embeddings and lm_head in int8.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

_GROUP = 128
_COPIED = ("*.json", "*.jinja", "openvino_tokenizer.*", "openvino_detokenizer.*")


def compressed_weights(model: ov.Model) -> dict[str, tuple[ov.Output, list[ov.Input]]]:
    """Weights of MatMul and Gather that the graph computes from constants, and who takes them.

    By the friendly name of the node that gives the decompressed weight.
    """
    found: dict[str, tuple[ov.Output, list[ov.Input]]] = {}
    constant: dict[str, bool] = {}
    for node in model.get_ordered_ops():
        sources = [value.get_source_output().get_node() for value in node.inputs()]
        kind = node.get_type_name()
        constant[node.get_name()] = kind == "Constant" or (
            bool(sources)
            and kind != "ReadValue"  # the KV cache, which begins as a constant
            and all(constant[source.get_name()] for source in sources)
        )
        position = {"MatMul": 1, "Gather": 0}.get(kind)
        if position is None or constant[node.get_name()]:
            continue
        weight = sources[position]
        if weight.get_type_name() != "Constant" and constant[weight.get_name()]:
            name = weight.get_friendly_name()
            found.setdefault(name, (weight.output(0), []))[1].append(node.input(position))
    return found


def decompress(weight: ov.Output) -> np.ndarray:
    """Compute a weight, which depends on constants alone, in the graph's own precision."""
    value = ov.Tensor(weight.get_element_type(), weight.get_shape())
    if not ov.Model([weight], []).evaluate([value], []):
        raise RuntimeError(f"cannot evaluate {weight.get_node().get_friendly_name()}")
    return value.data


def expand(model: ov.Model) -> int:
    """Turn compressed weights into f16 constants, in place; how many there were."""
    weights = compressed_weights(model)
    for name, (output, takers) in weights.items():
        constant = ops.constant(decompress(output).astype(np.float16))
        plain = ops.convert(constant, output.get_element_type().get_type_name())
        plain.set_friendly_name(name)
        for taker in takers:
            taker.replace_source_output(plain.output(0))
    return len(weights)


def make(source: Path, out: Path) -> Path:
    """Write the int4 form of the stock directory `source` to `out`, unless it is there."""
    if (out / "openvino_model.bin").exists():
        return out
    import nncf

    model = ov.Core().read_model(source / "openvino_model.xml")
    if not expand(model):
        raise ValueError(f"{source} has no compressed weights: not a stock export of a GGUF model")
    model = nncf.compress_weights(
        model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=_GROUP, ratio=1.0
    )
    staging = out.with_name(out.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    ov.save_model(model, staging / "openvino_model.xml", compress_to_fp16=False)
    for pattern in _COPIED:
        for path in source.glob(pattern):
            # The manifest tells of another model's making.
            if path.name != "ovfast.json":
                shutil.copy2(path, staging)
    staging.rename(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="stock export: ovfast export --no-pack")
    parser.add_argument("out", type=Path, help="directory to write")
    arguments = parser.parse_args()
    print(make(arguments.source, arguments.out))


if __name__ == "__main__":
    main()
