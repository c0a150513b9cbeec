"""From the start of a process to its first token, and the memory that the process takes.

Each peer has processes of its own: several engines in one would share and distort each other's
memory. The file cache is warm, and what an engine prepares once for a model is prepared.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from fresh_process import run_fresh
from measure import QuietProbe, note_quietness, record, repeats
from oracle import Oracle, worst_gaps
from peers import PeerUnavailableError, Target
from prompts import PromptSource


def _warm_file_cache(target: Target) -> None:
    directories = [target.model_dir, *([target.packed_dir] if target.packed_dir else [])]
    files = [path for directory in directories for path in directory.rglob("openvino_*.bin")]
    for path in [*files, *([target.gguf] if target.gguf else [])]:
        with path.open("rb") as file:
            while file.read(16 << 20):
                pass


def test_cold_start(
    benchmark: Any,
    target: Target,
    peer_names: list[str],
    prompts: PromptSource,
    rounds: Callable[[int], int],
    probe: QuietProbe,
    oracle: Callable[[], Oracle],
) -> None:
    prompt = prompts.prompt(64, "cold start")
    started: dict[str, list[dict[str, Any]]] = {name: [] for name in peer_names}
    absent: dict[str, str] = {}
    for name in peer_names:
        try:
            run_fresh(name, target, prompt, 2)
        except PeerUnavailableError as error:
            absent[name] = str(error)
    _warm_file_cache(target)
    first_sample = len(probe.cpu_seconds)

    def every_peer() -> None:
        for name in peer_names:
            if name not in absent:
                probe.measure()
                started[name].append(run_fresh(name, target, prompt, 16))

    benchmark.pedantic(every_peer, rounds=rounds(3), iterations=1)
    note_quietness(benchmark, probe, first_sample)
    results = {name: of_peer for name, of_peer in started.items() if of_peer}
    answers = {name: [result["token_ids"] for result in of] for name, of in results.items()}
    record(
        benchmark,
        metric="cold start",
        model=target.name,
        case="process start to first token",
        unit="s",
        samples={
            name: [result["first_token_seconds"] for result in of_peer]
            for name, of_peer in results.items()
        },
        absent=absent,
        repeats=repeats(answers),
        worst_gap=worst_gaps(oracle(), {name: [(prompt, of[0])] for name, of in answers.items()}),
        weights_mb={
            name: of_peer[0]["weights_bytes"] / 1e6
            for name, of_peer in results.items()
            if of_peer[0]["weights_bytes"]
        },
        load_seconds=_medians(results, lambda result: result["load_seconds"]),
        memory_mb={
            field: _medians(results, lambda result, field=field: result["memory"][field] / 1e6)
            for field in ("VmHWM", "RssAnon", "RssFile")
        },
    )


def _medians(
    results: dict[str, list[dict[str, Any]]], value: Callable[[dict[str, Any]], float]
) -> dict[str, float]:
    return {name: statistics.median(map(value, of_peer)) for name, of_peer in results.items()}
