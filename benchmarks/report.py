"""Turn the JSON of a benchmark run into a table (Markdown) and a plot (PNG) beside it.

python benchmarks/report.py benchmarks/results/benchmarks.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    """Read the JSON and keep the benchmarks that measured something."""
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    run["benchmarks"] = [entry for entry in run["benchmarks"] if "metric" in entry["extra_info"]]
    if not run["benchmarks"]:
        raise SystemExit(f"{path} holds no results of these benchmarks")
    return run


def markdown(run: dict[str, Any]) -> str:
    """The whole report."""
    entries = [entry["extra_info"] for entry in run["benchmarks"]]
    peers = _peers(entries)
    cpu = run["machine_info"].get("cpu", {})
    when = run["datetime"][:16].replace("T", " ")
    lines = [
        "# Benchmarks",
        "",
        f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} threads; {when} UTC.",
        "Medians; in brackets the ratio to the first column of engines, then the number of rounds.",
        "",
        *_table(
            ["model", "what", "case", "unit", *peers, "rounds"],
            [
                [
                    *_key(info),
                    info["unit"],
                    *(_cell(info, peer) for peer in peers),
                    str(max(len(values) for values in info["samples"].values())),
                ]
                for info in entries
            ],
        ),
    ]
    for info in entries:
        if "memory_mb" in info:
            title = f"## Memory of one process, MB, model {info['model']}"
            lines += ["", title, "", *_memory_table(info)]
        if "infer_ms" in info:
            infer = sorted(info["infer_ms"])[len(info["infer_ms"]) // 2]
            lines += [
                "",
                f"Model {info['model']}: infer() took {infer:.2f} ms a step where overhead was measured.",
            ]
    lines += ["", "## Do the engines agree?", "", *_agreement(entries, peers)]
    lines += ["", "## Was the machine quiet?", "", *_quietness(entries)]
    absent = {name: why for info in entries for name, why in info.get("absent", {}).items()}
    if absent:
        lines += ["", "## Not measured", "", *(f"- {name}: {why}" for name, why in absent.items())]
    return "\n".join(lines) + "\n"


def plot(run: dict[str, Any], path: Path) -> None:
    """One panel a measurement: a bar for each engine, its samples as dots."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")

    entries = [entry["extra_info"] for entry in run["benchmarks"]]
    colours = {peer: f"C{index}" for index, peer in enumerate(_peers(entries))}
    columns = min(4, len(entries))
    rows = -(-len(entries) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 2.8 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(entries) :]:
        axis.set_axis_off()
    for axis, info in zip(axes.flat, entries, strict=False):
        for place, (peer, samples) in enumerate(info["samples"].items()):
            axis.bar(place, info["median"][peer], color=colours[peer])
            axis.plot([place] * len(samples), samples, "k.", markersize=4, alpha=0.6)
        axis.set_xticks(range(len(info["samples"])), list(info["samples"]), fontsize=7)
        title = f"{info['model']}: {info['metric']}, {info['unit']}\n{info['case']}"
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _peers(entries: list[dict[str, Any]]) -> list[str]:
    """All engines in the order of their first appearance."""
    return list(dict.fromkeys(name for info in entries for name in info["samples"]))


def _cell(info: dict[str, Any], peer: str) -> str:
    if peer not in info["median"]:
        return ""
    return f"{info['median'][peer]:.4g} ({info['ratio'][peer]:.2f})"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _memory_table(info: dict[str, Any]) -> list[str]:
    memory = info["memory_mb"]
    return _table(
        ["engine", "weights", "peak RSS", "private after the answer", "file-backed", "load, s"],
        [
            [
                peer,
                f"{info['weights_mb'][peer]:.0f}" if peer in info["weights_mb"] else "",
                *(f"{memory[field][peer]:.0f}" for field in ("VmHWM", "RssAnon", "RssFile")),
                f"{info['load_seconds'][peer]:.2f}",
            ]
            for peer in info["samples"]
        ],
    )


def _agreement(entries: list[dict[str, Any]], peers: list[str]) -> list[str]:
    different = {
        f"{peer} ({info['model']}, {info['case']})"
        for info in entries
        for peer, same in info.get("repeats", {}).items()
        if not same
    }
    lines = [
        "Share of an answer's tokens in common with the first engine's, from its beginning. Greedy",
        "answers of engines that round differently part at the first close call.",
        "",
        *_by_peer(entries, peers, "agreement", ".0%"),
        "",
        "How far the logit of a token in an answer was below the best one, at the worst token, by the",
        "f32 logits of the stock graph. Close calls are below 1; nonsense is 10 and more.",
        "",
        *_by_peer(entries, peers, "worst_gap", ".2f"),
    ]
    if different:
        lines += ["", f"Answers changed from round to round: {', '.join(sorted(different))}."]
    return lines


def _by_peer(entries: list[dict[str, Any]], peers: list[str], field: str, form: str) -> list[str]:
    rows = [
        [
            *_key(info),
            *(format(info[field][peer], form) if peer in info[field] else "" for peer in peers),
        ]
        for info in entries
        if field in info
    ]
    return _table(["model", "what", "case", *peers], rows)


def _key(info: dict[str, Any]) -> list[str]:
    return [info["model"], info["metric"], info["case"]]


def _quietness(entries: list[dict[str, Any]]) -> list[str]:
    rows = []
    for info in entries:
        quiet = info["quiet"]
        rows.append(
            [
                *_key(info),
                f"{quiet['cpu_spread']:.2f}",
                f"{quiet['read_spread']:.2f}",
                f"{quiet['read_gb_per_second']:.1f}",
                "**noisy**" if quiet["noisy"] else "quiet",
            ]
        )
    return [
        "A fixed piece of work between measurements: worst time over median (1 is quiet).",
        "",
        *_table(["model", "what", "case", "CPU", "memory", "read GB/s", ""], rows),
    ]


def main() -> None:
    """Write the report beside the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="what pytest --benchmark-json wrote")
    path: Path = parser.parse_args().json
    run = load(path)
    path.with_suffix(".md").write_text(markdown(run), encoding="utf-8")
    plot(run, path.with_suffix(".png"))
    print(f"wrote {path.with_suffix('.md')} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
