"""What each recipe of `ovfast quantize` makes of a model: size, KL, top-1, time, memory, speed.

    python benchmarks/recipes.py MODEL_DIR -o results/recipes [--recipe NAME]... [--speed]

MODEL_DIR is a model directory, quantized or not: its weights, expanded to f16, are the original.
Each recipe is compressed by the command line in a process of its own, and the result is compared
with the original on text of Python that was not calibrated with. Both compute in f32, so that the
figures tell of the weights alone. Results are added to the JSON, recipe by recipe; with --speed only
the speed of what lies there is measured, which needs a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ovfast.evaluate import evaluate
from ovfast.evaluate.options import PARTS
from ovfast.evaluate.worker import run_model
from ovfast.model_dir import ModelDir

RECIPES = (
    *(
        "int8",
        "int8-sym",
        "int4-g32",
        "int4-g64",
        "int4-asym-g64",
        "int4-asym-g128",
        "int4-g128",
        "int4-awq",
    ),
    *("int4-awq-data", "int4-scale-estimation", "int4-asym-data", "int4-gptq", "int4-asym-gptq"),
    *("int4-mixed", "int4-all", "nf4"),
)


def compress(source: Path, out: Path, recipe: str) -> dict[str, Any]:
    """Run the command; return its JSON, with seconds and peak memory of the whole process."""
    command = [sys.executable, "-m", "ovfast", "quantize", str(source), "-o", str(out), "--force"]
    command += ["--recipe", recipe, "--json", "--no-progress"]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as answer:
        child = subprocess.Popen(command, stdout=answer)
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            raise SystemExit(f"{' '.join(command)} failed")
        answer.seek(0)
        result: dict[str, Any] = json.load(answer)
    result["process_seconds"] = time.perf_counter() - begin
    result["cpu_seconds"] = usage.ru_utime + usage.ru_stime
    result["peak_rss_bytes"] = usage.ru_maxrss * 1024
    return result


def measure(source: Path, out: Path, recipe: str, positions: int) -> dict[str, Any]:
    """Compress and compare."""
    made = compress(source, out, recipe)
    text = evaluate(out, source, positions=positions, exact=True, without=PARTS).text
    assert text is not None
    return {
        "weights_bytes": made["weights_bytes"],
        "packed": made["packed"],
        "layers": made["layers"],
        "seconds": made["process_seconds"],
        "cpu_seconds": made["cpu_seconds"],
        "peak_rss_bytes": made["peak_rss_bytes"],
        "positions": text.positions,
        "kl_mean": text.kl_mean,
        "kl_p99": text.kl_p99,
        "top1_agreement": text.top1_agreement,
        "perplexity_ratio": text.perplexity_ratio,
    }


def speed(out: Path) -> dict[str, Any]:
    """Decode and time to first token of a fresh process."""
    found = run_model(out, [], max_new_tokens=1, speed=True).speed
    assert found is not None
    return {"tpot_ms": found.tpot_ms, "ttft_ms": found.ttft_ms}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, the closest to the original first."""
    head = ("recipe", "MB", "KL", "KL, 99th percentile", "top-1", "perplexity", "CPU s", "GB")
    lines = [f"| {' | '.join((*head, 'tokens/s'))} |", "|---|" + "---:|" * len(head)]
    for name, one in sorted(results.items(), key=lambda item: item[1]["kl_mean"]):
        rate = f"{1e3 / one['tpot_ms']:.1f}" if "tpot_ms" in one else "-"
        cells = (
            f"`{name}`",
            f"{one['weights_bytes'] / 1e6:.0f}",
            f"{one['kl_mean']:.4f}",
            f"{one['kl_p99']:.3f}",
            f"{one['top1_agreement']:.1%}",
            f"x {one['perplexity_ratio']:.3f}",
            f"{one['cpu_seconds']:.0f}",
            f"{one['peak_rss_bytes'] / 1e9:.1f}",
            rate,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="model directory")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without a suffix")
    parser.add_argument("--recipe", action="append", choices=RECIPES, help="may be repeated")
    parser.add_argument("--positions", type=int, default=600)
    parser.add_argument("--models", type=Path, help="where the results go, and stay")
    parser.add_argument(
        "--speed", action="store_true", help="only the speed of what is in --models"
    )
    arguments = parser.parse_args()
    if arguments.speed and arguments.models is None:
        parser.error("--speed needs --models")
    ModelDir.check(arguments.source)
    file = arguments.output.with_suffix(".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in arguments.recipe or RECIPES:
            out = (arguments.models or Path(temporary)) / recipe
            if arguments.speed:
                results[recipe].update(speed(out))
            else:
                results[recipe] = measure(arguments.source, out, recipe, arguments.positions)
            file.write_text(json.dumps(results, indent=2) + "\n")
            print(table({recipe: results[recipe]}).splitlines()[-1], flush=True)
    arguments.output.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
