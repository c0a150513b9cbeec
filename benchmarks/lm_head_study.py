"""How little of an lm_head must be read for a token: quality and bytes of several ways, as a table.

    python benchmarks/lm_head_study.py STOCK_EXPORT MODEL.gguf -o table.md

Numerics only: no kernel runs and nothing is timed. A screen is an approximation of the lm_head that
is read whole; `bound` is how far it may be off for one row and one hidden state. Rows whose upper
bound reaches the k-th best exact logit that is known must be rescored for the k best to be proven.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import openvino as ov
from all_positions import EXACT, Prefill, read, split_lm_head
from texts import texts

F = np.float32
_SKIPPED = 4  # The first tokens of a text have hidden states that no answer has.
_TOPS = (1, 20, 50)
_BATCH = 128
_ROWS = 8192
_GROUP = 32
_SIGMAS = 6.0
_EXTRA = 16
# f32 sums of 900 products are off by parts in a million of a logit of 30.
_ROUNDING = F(1e-4)
_FLOOR_GB = 28.0
BOUNDS = ("row", "groups", "gamma", "gamma groups", "diagonal", "covariance", "6 sigma")


def hidden_states(model_dir: Path, positions: int) -> np.ndarray:
    """Collect [positions, width] f32: what the lm_head multiplies."""
    core = ov.Core()
    run = Prefill(split_lm_head(read(model_dir, core))[0], EXACT, core)
    made = texts(model_dir, positions, skipped=_SKIPPED)
    return np.concatenate([run(ids)[_SKIPPED:] for ids in made])


@dataclass
class Source:
    """An lm_head of 8 bits a weight, how it is split in halves, and the norm before it."""

    weights: np.ndarray  # f32 [rows, columns]
    high: np.ndarray  # f32, with the middle of what the low 4 bits can be
    group: int  # columns that share a scale
    gamma: np.ndarray  # f32 [columns]: what the last norm multiplies with

    @classmethod
    def read_gguf(cls, gguf: Path) -> Source:
        """Q8_0: a scale for each row and group of 32."""
        from gguf import GGMLQuantizationType, GGUFReader

        tensors = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
        head = tensors.get("output.weight", tensors.get("token_embd.weight"))
        if head.tensor_type != GGMLQuantizationType.Q8_0:
            raise SystemExit(f"the lm_head of {gguf} is {head.tensor_type.name}, expected Q8_0")
        blocks = head.data.reshape(len(head.data), -1, 34)
        scales = blocks[:, :, :2].copy().view(np.float16).astype(F)
        codes = blocks[:, :, 2:].copy().view(np.int8).astype(np.int16) + 128
        return cls._split(codes, scales, F(128), tensors["output_norm.weight"].data.astype(F))

    @classmethod
    def read_nncf(cls, model_dir: Path) -> Source:
        """8 bits and a zero point for each row."""
        model = ov.Core().read_model(model_dir / "openvino_model.xml")
        nodes = {node.get_friendly_name(): node for node in model.get_ops()}
        found: dict[str, np.ndarray] = {}
        waiting = [nodes["weight.weight_output.weight"]]
        while waiting:
            node = waiting.pop()
            if node.get_type_name() == "Constant":
                found[node.get_friendly_name().rpartition("/")[2]] = node.data
            waiting += [value.get_source_output().get_node() for value in node.inputs()]
        scales, zero_points = (found.pop(name) for name in ("scale", "zero_point"))
        (codes,) = found.values()
        return cls._split(
            codes[:, None].astype(np.int16),
            scales[:, None].astype(F),
            zero_points[:, None].astype(F),
            nodes["weight.weight_output_norm.weight"].data,
        )

    @classmethod
    def _split(
        cls, codes: np.ndarray, scales: np.ndarray, zero: np.ndarray | F, gamma: np.ndarray
    ) -> Source:
        rows = len(codes)
        weights = ((codes - zero) * scales).reshape(rows, -1)
        high = (((codes >> 4) * F(16) + F(7.5) - zero) * scales).reshape(rows, -1)
        return cls(weights.astype(F), high.astype(F), codes.shape[2], gamma)


def int8_activations(x: np.ndarray) -> np.ndarray:
    """Round to int8 by group of 32 and back, as the kernels do."""
    groups = x.reshape(len(x), -1, _GROUP)
    scales = np.abs(groups).max(-1, keepdims=True) / F(127)
    return (np.rint(groups / scales) * scales).reshape(x.shape)


@dataclass
class Screen:
    name: str
    make: Callable[[], np.ndarray]  # f32 [rows, columns]
    row_bytes: float  # read for every row, bounds not included
    rescore_bytes: float  # read for one rescored row
    directions: np.ndarray | None = None  # f32 [columns, k], along which the error is corrected
    bounds: tuple[str, ...] = ("gamma", "covariance", "6 sigma")


def _grid(count: int) -> np.ndarray:
    return np.linspace(1.0, 0.55, count, dtype=F)


def quantize(
    weights: np.ndarray, bits: int, group: int, importance: np.ndarray | None = None
) -> np.ndarray:
    """Round to 2^bits levels at odd multiples of half a step, with the scale of least error.

    `importance` [columns] weighs the squared errors. Scales are f16 values.
    """
    half = F(2 ** (bits - 1))
    out = np.empty_like(weights)
    weight = None if importance is None else importance.reshape(-1, group).astype(F)
    for first in range(0, len(weights), _ROWS):
        rows = weights[first : first + _ROWS].reshape(-1, weights.shape[1] // group, group)
        largest = np.abs(rows).max(-1, keepdims=True) / (half - F(0.5))
        best = np.full(largest.shape, np.inf, F)
        chosen = np.zeros_like(rows)
        # Wide steps clip the largest values, narrow ones round all others coarsely.
        for factor in _grid(6 if bits > 3 else 10):
            scale = np.maximum((largest * factor).astype(np.float16).astype(F), F(1e-8))
            rounded = np.clip(np.floor(rows / scale), -half, half - 1) + F(0.5)
            rounded *= scale
            error = (rounded - rows) ** 2
            error = (error if weight is None else error * weight).sum(-1, keepdims=True)
            better = error < best
            best = np.where(better, error, best)
            np.copyto(chosen, rounded, where=better)
        out[first : first + _ROWS] = chosen.reshape(-1, weights.shape[1])
    return out


def gptq(weights: np.ndarray, covariance: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Round column after column, and let the columns that follow make up for the error."""
    size = len(covariance)
    damped = covariance + 0.01 * np.trace(covariance) / size * np.eye(size)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(F)
    half = F(2 ** (bits - 1))
    out = np.empty_like(weights)
    for first in range(0, len(weights), _ROWS):
        rows = weights[first : first + _ROWS].copy()
        for begin in range(0, size, group):
            end = begin + group
            block = rows[:, begin:end]
            scale = (np.abs(block).max(-1) * F(0.93) / (half - F(0.5))).astype(np.float16)
            scale = np.maximum(scale.astype(F), F(1e-8))
            errors = np.empty_like(block)
            for column in range(group):
                at = begin + column
                value = np.clip(np.floor(block[:, column] / scale), -half, half - 1) + F(0.5)
                value *= scale
                errors[:, column] = (block[:, column] - value) / upper[at, at]
                block[:, column:] -= np.outer(errors[:, column], upper[at, at:end])
                out[first : first + _ROWS, at] = value
            rows[:, end:] -= errors @ upper[begin:end, end:]
    return out


def turned(weights: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Keep what lies along `basis` [columns, k], in int8."""
    return quantize(weights @ basis, 8, 32) @ basis.T


def screens(source: Source, covariance: np.ndarray) -> Iterator[Screen]:
    weights = source.weights
    columns = weights.shape[1]
    full = columns + 2 * columns / source.group
    values, vectors = np.linalg.eigh(covariance)
    vectors = vectors[:, np.argsort(values)[::-1]].astype(F)

    yield Screen("8 bits as stored", lambda: weights, full, 0, bounds=())
    # Rescoring reads the low halves and the scales: what the high ones give is known already.
    nibble = columns / 2 + 2 * columns / source.group
    yield Screen("high 4 of 8 bits", lambda: source.high, nibble, nibble, bounds=BOUNDS)
    for count in (16, 64):
        yield Screen(
            f"high 4 of 8 bits, {count} directions exact",
            lambda: source.high,
            nibble + 2 * count,
            nibble,
            vectors[:, :count],
        )
    diagonal = np.diag(covariance)
    for name, group, make in (
        ("int4 g32, least squares", 32, partial(quantize, weights, 4, 32)),
        ("int4 g64, least squares", 64, partial(quantize, weights, 4, 64)),
        ("int4 g128, least squares", 128, partial(quantize, weights, 4, 128)),
        ("int4 g32, weighted by activations", 32, partial(quantize, weights, 4, 32, diagonal)),
        ("int4 g32, errors fed back (GPTQ)", 32, partial(gptq, weights, covariance, 4, 32)),
        ("int4 g128, errors fed back (GPTQ)", 128, partial(gptq, weights, covariance, 4, 128)),
    ):
        yield Screen(name, make, columns / 2 + 2 * columns / group, full)
    for bits in (3, 2):
        row_bytes = columns * bits / 8 + 2 * columns / 32
        make = partial(quantize, weights, bits, 32)
        yield Screen(f"int{bits} g32, least squares", make, row_bytes, full)
    right = np.linalg.eigh(weights.T @ weights)[1][:, ::-1].astype(F)
    for label, basis, count in (
        ("PCA of hidden states", vectors, 128),
        ("PCA of hidden states", vectors, 256),
        ("SVD of weights", right, 256),
    ):
        make = partial(turned, weights, basis[:, :count])
        yield Screen(f"{count} dimensions in int8, {label}", make, count * 34 / 32, full)


def bound_of(
    kind: str, errors: np.ndarray, covariance: np.ndarray, gamma: np.ndarray
) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
    """Bytes a row, and a function from states [n, columns] to bounds [n, rows].

    All but "6 sigma" are proofs: |r.x| <= ||A r|| ||x / A|| (Cauchy-Schwarz) for any invertible A.
    The mean bound is least when A^2 is the ratio of the states' to the errors' deviation, direction
    by direction.
    """
    if kind == "6 sigma":
        # No proof: how far it is usually off, from the states' covariance.
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        sigmas = _SIGMAS * np.linalg.norm(errors @ root.astype(F), axis=1)
        return 2, lambda states: np.outer(np.ones(len(states), F), sigmas)
    if kind == "covariance":
        values, vectors = np.linalg.eigh(covariance)
        vectors = vectors.astype(F)
        errors = errors @ vectors
        deviation = np.sqrt(np.maximum(values, 1e-5 * values.max()))
        scale = np.sqrt(deviation / (np.sqrt((errors**2).mean(0)) + 1e-12)).astype(F)
        norms = np.linalg.norm(errors * scale, axis=1)
        return 2, lambda states: np.outer(np.linalg.norm((states @ vectors) / scale, axis=1), norms)
    if kind == "diagonal":
        scale = np.sqrt(np.sqrt(np.diag(covariance))).astype(F)
    elif kind.startswith("gamma"):
        scale = np.sqrt(np.maximum(np.abs(gamma), 1e-3 * np.abs(gamma).max()))
    else:
        scale = np.ones(errors.shape[1], F)
    group = _GROUP if kind.endswith("groups") else errors.shape[1]
    norms = np.linalg.norm((errors * scale).reshape(len(errors), -1, group), axis=2)
    return (
        2 * norms.shape[1],
        lambda states: (
            np.linalg.norm((states / scale).reshape(len(states), -1, group), axis=2) @ norms.T
        ),
    )


@dataclass
class Line:
    name: str
    bound: str
    screen_mb: float
    rescore_bytes: float
    divergence: list[float] = field(default_factory=list)
    first_agrees: list[bool] = field(default_factory=list)
    # For each k: rows to rescore, rank in the screen of the worst of the k best, k best were found
    rescored: dict[int, list[int]] = field(default_factory=lambda: {k: [] for k in _TOPS})
    ranks: dict[int, list[int]] = field(default_factory=lambda: {k: [] for k in _TOPS})
    missed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_TOPS, 0))
    violations: int = 0
    # KL divergence when rows that the best 20 rescore are exact and the others as the screen has them
    mended: list[float] = field(default_factory=list)


def log_softmax_sum(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(1, keepdims=True)
    return largest + np.log(np.exp(logits - largest).sum(1, keepdims=True, dtype=np.float64))


@dataclass
class Exact:
    """The f32 product, and what is asked of it, for a batch of states."""

    states: np.ndarray
    logits: np.ndarray
    sums: np.ndarray  # [n, 1]: log of the sum of exponentials
    best: np.ndarray  # [n, 50] rows, best first


def exact_batches(weights: np.ndarray, states: np.ndarray, file: Path) -> list[Exact]:
    """Compute everything once; the logits lie in `file`."""
    logits = np.memmap(file, F, "w+", shape=(len(states), len(weights)))
    batches = []
    for first in range(0, len(states), _BATCH):
        part = logits[first : first + _BATCH]
        np.matmul(states[first : first + _BATCH], weights.T, out=part)
        best = np.argpartition(part, -max(_TOPS), axis=1)[:, -max(_TOPS) :]
        batches.append(
            Exact(states[first : first + _BATCH], part, _log_sum(part), _sort(part, best))
        )
    return batches


def _log_sum(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(1, keepdims=True)
    return largest + np.log(np.exp(logits - largest).sum(1, keepdims=True, dtype=np.float64))


def _divergence(batch: Exact, share: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """KL(exact || seen) = sum p (exact - seen) - log_sum(exact) + log_sum(seen)."""
    mean = np.einsum("ij,ij->i", share, batch.logits - seen, dtype=np.float64)
    return mean + (_log_sum(seen) - batch.sums)[:, 0]


def _sort(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    order = np.argsort(-np.take_along_axis(logits, chosen, 1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, 1)


def study(
    source: Source, screen: Screen, batches: list[Exact], covariance: np.ndarray, *, int8: bool
) -> list[Line]:
    """Run one screen over all states; a line for each of its bounds."""
    rows = len(source.weights)
    approximate = screen.make()
    errors = source.weights - approximate
    corrections = None
    if screen.directions is not None:
        # Rounded to f16 as they would be stored; the rounding is part of what remains.
        corrections = (errors @ screen.directions).astype(np.float16).astype(F)
        errors -= corrections @ screen.directions.T
    made = [bound_of(kind, errors, covariance, source.gamma) for kind in screen.bounds]
    lines = [
        Line(screen.name, kind, rows * (screen.row_bytes + extra) / 1e6, screen.rescore_bytes)
        for kind, (extra, _) in zip(screen.bounds, made, strict=True)
    ] or [Line(screen.name, "-", rows * screen.row_bytes / 1e6, 0)]
    del errors
    weight_norms = np.linalg.norm(source.weights, axis=1) if int8 else None
    for batch in batches:
        used = int8_activations(batch.states) if int8 else batch.states
        seen = used @ approximate.T
        if corrections is not None:
            seen += (used @ screen.directions) @ corrections.T
        share = np.exp(batch.logits - batch.sums)
        divergence = _divergence(batch, share, seen)
        first_agrees = batch.best[:, 0] == seen.argmax(1)
        # A few more than k in the first round make the k-th best known logit nearly the true one.
        most = max(_TOPS) + _EXTRA
        chosen = _sort(seen, np.argpartition(seen, -most, axis=1)[:, -most:])
        thresholds, ranks = {}, {}
        for k in _TOPS:
            known = np.take_along_axis(batch.logits, chosen[:, : k + _EXTRA], 1)
            thresholds[k] = np.partition(known, -k, axis=1)[:, -k, None]
            lowest = np.take_along_axis(seen, batch.best[:, :k], 1).min(1, keepdims=True)
            ranks[k] = (seen >= lowest).sum(1).tolist()
        for line, (_, bound) in zip(lines, made, strict=False):
            upper = bound(used)
            if weight_norms is not None:
                # Rounding of activations has no preferred direction.
                upper += np.outer(np.linalg.norm(batch.states - used, axis=1), weight_norms)
            upper += _ROUNDING
            line.violations += int((np.abs(batch.logits - seen) > upper).sum())
            upper += seen
            for k in _TOPS:
                line.rescored[k] += (upper >= thresholds[k]).sum(1).tolist()
                found = np.take_along_axis(upper, batch.best[:, :k], 1) >= thresholds[k]
                line.missed[k] += int((~found.all(1)).sum())
            mended = np.where(upper >= thresholds[20], batch.logits, seen)
            line.mended += _divergence(batch, share, mended).tolist()
        for line in lines:
            line.divergence += divergence.tolist()
            line.first_agrees += first_agrees.tolist()
            for k in _TOPS:
                line.ranks[k] += ranks[k]
    return lines


def table(lines: list[Line]) -> str:
    head = ["screen", "bound", "screen MB", "KL mean", "KL p99", "top-1", "KL, best 20 exact"]
    for k in _TOPS:
        head += [f"k={k}: rescored mean / p95 / max", "MB", "ms", "rank max"]
    head += ["bound broken", "wrong answers"]
    rows = []
    for line in lines:
        cells = [
            line.name,
            line.bound,
            f"{line.screen_mb:.1f}",
            f"{np.mean(line.divergence):.2e}",
            f"{np.percentile(line.divergence, 99):.2e}",
            f"{np.mean(line.first_agrees):.2%}",
            f"{np.mean(line.mended):.1e}" if line.mended else "-",
        ]
        for k in _TOPS:
            counts = line.rescored[k]
            if counts:
                mb = line.screen_mb + np.mean(counts) * line.rescore_bytes / 1e6
                shape = f"{np.mean(counts):,.0f} / {np.percentile(counts, 95):,.0f} / "
                cells += [shape + f"{max(counts):,}"]
            else:
                mb = line.screen_mb
                cells += ["-"]
            cells += [f"{mb:.1f}", f"{mb / _FLOOR_GB:.2f}", f"{max(line.ranks[k]):,}"]
        cells += [str(line.violations), " / ".join(str(line.missed[k]) for k in _TOPS)]
        rows.append(cells)
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path, help="stock export of a GGUF file")
    parser.add_argument("lm_head", type=Path, help="the GGUF file, or a directory from NNCF")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--only", nargs="*", default=[""], help="screens whose name contains one")
    parser.add_argument("--int8", action="store_true", help="screen with activations in int8")
    arguments = parser.parse_args()

    # The covariance comes from texts that are not measured.
    states = hidden_states(arguments.model_dir, 2 * arguments.positions)
    calibration, states = np.split(states, [arguments.positions])
    covariance = (calibration.T @ calibration / len(calibration)).astype(np.float64)
    of_nncf = arguments.lm_head.is_dir()
    source = (Source.read_nncf if of_nncf else Source.read_gguf)(arguments.lm_head)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as directory:
        batches = exact_batches(source.weights, states, Path(directory) / "logits")
        for screen in screens(source, covariance):
            if any(part in screen.name for part in arguments.only):
                started = time.perf_counter()
                lines += study(source, screen, batches, covariance, int8=arguments.int8)
                print(f"{screen.name}: {time.perf_counter() - started:.0f} s", flush=True)
                arguments.output.write_text(table(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
