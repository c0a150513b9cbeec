"""What each weight format's kernels cost in quality: Markdown table and JSON.

    python benchmarks/format_quality.py --gguf FILE --stock EXPORT -o results/formats

The weights of a GGUF file are brought into every format that packs (weight_formats.py), and the
logits of each model are compared with those of the very same weights in f32, computed by OpenVINO:
what the format itself costs is not in the figures, only what is computed otherwise. OpenVINO's
dynamic quantization is compared with OpenVINO's f32 on its own graph. Formats that the JSON file
has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from all_positions import EXACT
from quality import (
    DYNAMIC,
    SKIPPED,
    Way,
    compare,
    kernels_since,
    load_gguf,
    load_packed,
    load_stock,
    run,
)
from texts import texts
from weight_formats import Made, Source, formats

from ovfast.ops import kernel_calls

_TRUTH, _OWN_F32 = "weights in f32", "OpenVINO, f32"
_DYNAMIC = "OpenVINO, int8 by 32"
_KEPT_EXACT, _INT8, _PROMPT = "exact", "int8", "prompt"
_FEW = 16  # rows that are computed from int8 activations with every instruction set
_MANY = 256
_FEWER_POSITIONS = 500  # enough for what differs in rounding only


@dataclass(frozen=True)
class _Run:
    way: Way
    rows: int
    """Positions computed at once."""
    reference: str
    """Name of the way that it is compared with; its own name for a reference."""


def runs(made: Made, few: int) -> Iterator[_Run]:
    """Ways to run a format's model; references before those that are compared with them."""
    own = _TRUTH
    if made.gguf:
        own = _OWN_F32
        yield _Run(Way(_TRUTH, load_gguf(made.stock, made.gguf), EXACT, ()), _MANY, _TRUTH)
    yield _Run(Way(own, load_stock(made.stock), EXACT, ()), _MANY, _TRUTH)
    yield _Run(Way(_DYNAMIC, load_stock(made.stock), DYNAMIC, ()), _MANY, own)
    yield _Run(Way(_KEPT_EXACT, load_packed(made.packed, "exact"), EXACT, ()), _MANY, _TRUTH)
    yield _Run(Way(_INT8, load_packed(made.packed, "int8"), EXACT, ()), few, _TRUTH)
    yield _Run(Way(_PROMPT, load_packed(made.packed, "int8"), EXACT, ()), _MANY, _TRUTH)


def measure(made: Made, ids: list[list[int]], few: int, folder: Path) -> dict[str, Any]:
    """Compare all ways of one model: way -> comparison, kernels."""
    following = np.concatenate([[*text[SKIPPED + 1 :], -1] for text in ids])
    kept: dict[str, np.memmap] = {}
    measured: dict[str, Any] = {}
    for one in runs(made, few):
        name = one.way.name
        before = kernel_calls()
        file = folder / "logits"
        logits = run(one.way, _some(ids) if name in (_KEPT_EXACT, _PROMPT) else ids, one.rows, file)
        if name in (_TRUTH, _OWN_F32):
            kept[name] = logits
        if name != one.reference:
            expected = kept[one.reference][: len(logits)]
            result = compare(name, logits, one.reference, expected, following[: len(logits)])
            measured[name] = {**asdict(result), "kernels": kernels_since(before)}
        file.unlink()  # the mapping lives on where it is kept
    return measured


def _some(ids: list[list[int]]) -> list[list[int]]:
    positions = np.cumsum([len(text) - SKIPPED for text in ids])
    return ids[: int(np.searchsorted(positions, _FEWER_POSITIONS)) + 1]


def table(data: dict[str, Any]) -> str:
    heads = [
        "format",
        "exact: KL",
        "int8: KL mean, p99, same best",
        "OpenVINO, int8 by 32: the same",
        "prompt: KL mean",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name in formats():
        if name not in data["formats"]:
            continue
        ways = data["formats"][name]
        cells = [
            f"{ways[_KEPT_EXACT]['kl_mean']:.0e}",
            _three(ways[_INT8]),
            _three(ways[_DYNAMIC]),
            f"{ways[_PROMPT]['kl_mean']:.1e}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _three(one: dict[str, Any]) -> str:
    return f"{one['kl_mean']:.2e}, {one['kl_p99']:.1e}, {one['top1_agreement']:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True, help="where the weights come from")
    parser.add_argument("--stock", type=Path, required=True, help="ovfast export --no-pack of it")
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument(
        "--chunk", type=int, default=_FEW, help="positions at once of 'int8'; 1: as answers are"
    )
    parser.add_argument("--only", default="", help="formats whose name contains this")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without .md and .json")
    arguments = parser.parse_args()

    ids = texts(arguments.stock, arguments.positions, skipped=SKIPPED)
    file = arguments.output.with_suffix(".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"positions": arguments.positions, "chunk": arguments.chunk}
    data: dict[str, Any] = {**settings, "formats": {}}
    if file.exists():
        data = json.loads(file.read_text())
        if any(data[name] != value for name, value in settings.items()):
            parser.error(f"{file} was measured with other settings than {settings}")
    with tempfile.TemporaryDirectory() as directory:
        for name, make in formats().items():
            if arguments.only not in name or name in data["formats"]:
                continue
            work = Path(directory) / "model"
            work.mkdir()
            made = make(Source(arguments.gguf, arguments.stock, work))
            data["formats"][name] = measure(made, ids, arguments.chunk, Path(directory))
            shutil.rmtree(work)
            file.write_text(json.dumps(data, indent=2) + "\n")
            arguments.output.with_suffix(".md").write_text(table(data), encoding="utf-8")
            print(table({"formats": {name: data["formats"][name]}}).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
