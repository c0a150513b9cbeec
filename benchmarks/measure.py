"""Alternating measurement, its statistics, and how quiet the machine was meanwhile."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, TypeVar

import numpy as np
from peers import OUR_OWN, Peer

from ovfast import _core

T = TypeVar("T")

# Well beyond any last-level cache, or the probe would measure that.
_PROBE_BYTES = 256 << 20
_NOISY_SPREAD = 1.15


class NoisyMachineWarning(UserWarning):
    """Other work ran during the measurement: trust ratios of many rounds only."""


class QuietProbe:
    """A fixed piece of work, repeated between measurements: on a quiet machine it takes as long."""

    def __init__(self) -> None:
        self._buffer = np.ones(_PROBE_BYTES // 8, dtype=np.int64)
        self._message = bytes(4 << 20)
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)
        self._native = getattr(_core, "read_bandwidth", None)
        self.cpu_seconds: list[float] = []
        self.read_gb_per_second: list[float] = []

    def measure(self) -> None:
        """Take one sample of instruction rate (one thread) and read bandwidth (all threads)."""
        started = time.perf_counter()
        hashlib.sha256(self._message).digest()
        self.cpu_seconds.append(time.perf_counter() - started)

        self.read_gb_per_second.append(self._read_bandwidth() / 1e9)

    def _read_bandwidth(self) -> float:
        if self._native is not None:
            return float(self._native())
        started = time.perf_counter()
        list(self._pool.map(np.max, np.array_split(self._buffer, self._threads)))
        return _PROBE_BYTES / (time.perf_counter() - started)

    def summary(self, since: int = 0) -> dict[str, float | bool]:
        """What the samples from number `since` on say; spreads are worst over median, 1 is quiet.

        The slowest tenth is left out, so that one interrupt does not call a machine noisy.
        """
        cpu = sorted(self.cpu_seconds[since:])
        read = sorted(self.read_gb_per_second[since:], reverse=True)
        worst = max(len(cpu) // 2, int(0.9 * len(cpu)) - 1)
        cpu_spread = cpu[worst] / statistics.median(cpu)
        read_spread = statistics.median(read) / read[worst]
        return {
            "cpu_spread": cpu_spread,
            "read_spread": read_spread,
            "read_gb_per_second": statistics.median(read),
            "noisy": max(cpu_spread, read_spread) > _NOISY_SPREAD,
        }


def alternate(
    benchmark: Any,
    peers: Sequence[Peer],
    action: Callable[[Peer, int], T],
    *,
    rounds: int,
    probe: QuietProbe,
) -> dict[str, list[T]]:
    """Do `action(peer, round)` for each peer in turn, round after round: A, B, A, B, ...

    What disturbs the machine for a while so disturbs all of them. pytest-benchmark's clock times the
    first peer; the others run in its setup, in an order that turns from round to round. Returns
    what `action` returned, by peer, a value for each round. The caller warms up.
    """
    subject, *others = peers
    results: dict[str, list[T]] = {peer.name: [] for peer in peers}
    number = count()
    first_sample = len(probe.cpu_seconds)

    def setup() -> tuple[tuple[int], dict[str, Any]]:
        current = next(number)
        for position in range(len(others)):
            peer = others[(position + current) % len(others)]
            probe.measure()
            results[peer.name].append(action(peer, current))
        probe.measure()
        return (current,), {}

    def target(current: int) -> None:
        results[subject.name].append(action(subject, current))

    benchmark.pedantic(target, setup=setup, rounds=rounds, iterations=1)
    note_quietness(benchmark, probe, first_sample)
    return results


def note_quietness(benchmark: Any, probe: QuietProbe, first_sample: int) -> None:
    """Put the probe's samples since `first_sample` into the result, and warn when they differ."""
    probe.measure()
    quiet = probe.summary(first_sample)
    benchmark.extra_info["quiet"] = quiet
    if quiet["noisy"]:
        warnings.warn(
            f"other programs ran during {benchmark.name}: a fixed piece of work took up to "
            f"{quiet['cpu_spread']:.2f} (CPU) and {quiet['read_spread']:.2f} (memory) x its median",
            NoisyMachineWarning,
            stacklevel=2,
        )


def record(
    benchmark: Any,
    *,
    metric: str,
    model: str,
    case: str,
    unit: str,
    samples: Mapping[str, Sequence[float]],
    **more: object,
) -> None:
    """Put samples by peer into the JSON, with medians and their ratios to the first peer's."""
    medians = {name: statistics.median(values) for name, values in samples.items()}
    reference = next(iter(medians.values()))
    benchmark.extra_info.update(
        metric=metric,
        model=model,
        case=case,
        unit=unit,
        samples={name: list(map(float, values)) for name, values in samples.items()},
        median=medians,
        ratio={name: median / reference for name, median in medians.items()},
        **more,
    )


def agreement(answers: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float]:
    """Share of tokens, from the beginning, that each peer has in common with the first peer.

    Greedy answers of engines with different rounding part at the first close call, and have nothing
    to do with each other from there on: a low share is no fault by itself, but 0 is one.
    """
    subject = next(iter(answers.values()))
    return {
        name: statistics.mean(map(_common_share, subject, of_peer))
        for name, of_peer in answers.items()
    }


def _common_share(first: Sequence[int], second: Sequence[int]) -> float:
    common = 0
    while common < len(first) and common < len(second) and first[common] == second[common]:
        common += 1
    return common / len(first)


def repeats(answers: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, bool]:
    """Whether each peer answered its prompt, the same in every round, in the same way.

    For ours this is asserted.
    """
    same = {name: all(answer == of[0] for answer in of) for name, of in answers.items()}
    for name in OUR_OWN:
        assert same.get(name, True), f"{name} gave different answers to one prompt: {answers[name]}"
    return same
