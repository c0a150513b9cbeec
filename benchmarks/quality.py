"""What ways of running a model cost in quality, against f32: Markdown table and JSON.

    python benchmarks/quality.py --stock EXPORT [--gguf FILE] [--packed DIR] -o results/quality

The same texts go through every way, and the logits of all positions are compared with those of a
reference: KL divergence, share of positions with the same best token, ratio of perplexities.
Everything runs in plain OpenVINO on the stateful graph; a packed directory with ovfast's operations
added. The first reference is the model with the weights of the GGUF file in f32, nothing rounded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openvino as ov
from all_positions import EXACT, Prefill, read
from nncf_model import compressed_weights
from openvino import opset13 as ops
from texts import texts
from weight_formats import gguf_weights

from ovfast.ops import kernel_calls, register

SKIPPED = 4
"""First positions of each text, which follow from nothing: not compared."""
_BATCH = 4  # what a core caches
DYNAMIC = {**EXACT, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
_GGUF = "GGUF weights in f32"
_EXACT = "stock, f32, no dynamic quantization"
_PACKED_EXACT = "ovfast packed, exact"


@dataclass(frozen=True)
class Way:
    """One way to run the model, and what it is compared with, where that is there."""

    name: str
    load: Callable[[ov.Core], ov.Model]
    properties: dict[str, str]
    references: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Over all positions; nothing in it depends on the machine's speed."""

    way: str
    reference: str
    positions: int
    kl_mean: float
    kl_error: float
    """Standard error of the mean, positions taken as independent."""
    kl_p99: float
    top1_agreement: float
    perplexity_ratio: float


def load_stock(model_dir: Path) -> Callable[[ov.Core], ov.Model]:
    """Load a stock graph."""
    return lambda core: read(model_dir, core)


def load_packed(model_dir: Path, activations: str) -> Callable[[ov.Core], ov.Model]:
    """Load a packed graph with activations "int8" or "exact"."""

    def load(core: ov.Core) -> ov.Model:
        register(core)
        model = read(model_dir, core)
        operations = [node for node in model.get_ops() if "activations" in node.get_attributes()]
        if not operations:
            raise SystemExit(f"{model_dir} holds none of ovfast's linear layers: is it packed?")
        for node in operations:
            node.set_attribute("activations", activations)
        return model

    return load


def load_gguf(model_dir: Path, gguf: Path) -> Callable[[ov.Core], ov.Model]:
    """Put the file's own weights into the stock graph, which has some of them rounded."""

    def load(core: ov.Core) -> ov.Model:
        model = read(model_dir, core)
        weights = gguf_weights(gguf)
        for name, (_, takers) in compressed_weights(model).items():
            constant = ops.constant(weights[name], shared_memory=True)
            for taker in takers:
                taker.replace_source_output(constant.output(0))
        return model

    return load


def ways(stock: Path, packed: Path | None, gguf: Path | None) -> list[Way]:
    """References first."""
    truth = _GGUF if gguf else _EXACT
    made = [Way(_GGUF, load_gguf(stock, gguf), EXACT, ())] if gguf else []
    made += [
        Way(_EXACT, load_stock(stock), EXACT, (truth,)),
        Way("stock, f32, dynamic quantization 32", load_stock(stock), DYNAMIC, (_EXACT, truth)),
        Way("stock, plugin's defaults", load_stock(stock), {}, (_EXACT, truth)),
    ]
    if packed:
        # A precision hint is for the operations around ours, which take and give f32.
        made += [
            Way(_PACKED_EXACT, load_packed(packed, "exact"), EXACT, (truth,)),
            Way(
                "ovfast packed, int8 activations",
                load_packed(packed, "int8"),
                EXACT,
                (_PACKED_EXACT, truth),
            ),
            Way("ovfast packed, plugin's defaults", load_packed(packed, "int8"), {}, (truth,)),
        ]
    return made


def run(way: Way, ids: list[list[int]], chunk: int, file: Path) -> np.memmap:
    """Write the logits of all texts but for the first few positions of each: [positions, vocab]."""
    core = ov.Core()
    model = way.load(core)
    vocabulary = model.output("logits").get_partial_shape()[2].get_length()
    prefill = Prefill(model, way.properties, core)
    rows = sum(len(text) - SKIPPED for text in ids)
    logits = np.memmap(file, np.float32, "w+", shape=(rows, vocabulary))
    first = 0
    for text in ids:
        last = first + len(text) - SKIPPED
        logits[first:last] = prefill(text, chunk)[SKIPPED:]
        first = last
    return logits


def kernels_since(before: dict[str, int]) -> str:
    """Name what ran of ovfast's kernels: rounding differs between those for few and many rows."""
    return ", ".join(
        f"{name} {calls - before.get(name, 0)}"
        for name, calls in sorted(kernel_calls().items())
        if calls > before.get(name, 0)
    )


def compare(
    way: str, logits: np.ndarray, reference: str, expected: np.ndarray, following: np.ndarray
) -> Comparison:
    """Compare logits [positions, vocab]; `following` is each position's next token, -1 for none."""
    divergence, agrees, lost = [], [], []
    for first in range(0, len(logits), _BATCH):
        part = slice(first, first + _BATCH)
        ours, theirs = _log_softmax(logits[part]), _log_softmax(expected[part])
        if np.isnan(ours).any():
            raise SystemExit(f"{way}: the logits hold NaN")
        divergence.append((np.exp(theirs) * (theirs - ours)).sum(1))
        agrees.append(logits[part].argmax(1) == expected[part].argmax(1))
        known = np.flatnonzero(following[part] >= 0)
        token = following[part][known]
        lost.append(theirs[known, token] - ours[known, token])
    all_divergence = np.concatenate(divergence)
    return Comparison(
        way=way,
        reference=reference,
        positions=len(logits),
        kl_mean=float(all_divergence.mean()),
        kl_error=float(all_divergence.std() / np.sqrt(len(all_divergence))),
        kl_p99=float(np.percentile(all_divergence, 99)),
        top1_agreement=float(np.concatenate(agrees).mean()),
        perplexity_ratio=float(np.exp(np.concatenate(lost).mean())),
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    # In f64: the divergences of interest are near the rounding of f32 sums of 150,000 terms.
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def table(comparisons: list[Comparison]) -> str:
    lines = [
        "| way | against | KL mean | KL p99 | same best token | perplexity ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.way} | {one.reference} | {one.kl_mean:.2e} | {one.kl_p99:.2e} "
        f"| {one.top1_agreement:.2%} | {one.perplexity_ratio:.4f} |"
        for one in comparisons
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stock", type=Path, required=True, help="ovfast export --no-pack, NNCF")
    parser.add_argument("--gguf", type=Path, help="the GGUF file that it was made from")
    parser.add_argument("--packed", type=Path, help="the same model packed")
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument(
        "--chunk", type=int, default=256, help="positions computed at once; 1 is how answers are"
    )
    parser.add_argument("--only", default="", help="ways whose name contains this, and references")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without .md and .json")
    arguments = parser.parse_args()

    ids = texts(arguments.stock, arguments.positions, skipped=SKIPPED)
    following = np.concatenate([[*text[SKIPPED + 1 :], -1] for text in ids])
    chosen = ways(arguments.stock, arguments.packed, arguments.gguf)
    references = {name for way in chosen for name in way.references}
    comparisons: list[Comparison] = []
    kernels: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        kept: dict[str, np.memmap] = {}
        for number, way in enumerate(chosen):
            if arguments.only not in way.name and way.name not in references:
                continue
            file = Path(directory) / str(number)
            before = kernel_calls()
            logits = run(way, ids, arguments.chunk, file)
            kernels[way.name] = kernels_since(before)
            for name in dict.fromkeys(way.references):
                if name != way.name:
                    one = compare(way.name, logits, name, kept[name], following)
                    comparisons.append(one)
                    print(table([one]).splitlines()[-1], flush=True)
            if way.name in references:
                kept[way.name] = logits
            file.unlink()  # the mapping lives on where it is kept
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "chunk": arguments.chunk,
        "comparisons": [asdict(one) for one in comparisons],
        "kernels": kernels,
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(data, indent=2) + "\n")
    text = f"{arguments.chunk} positions at once.\n\n{table(comparisons)}"
    text += "".join(f"\n{way}: {ran}\n" for way, ran in kernels.items() if ran)
    arguments.output.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
