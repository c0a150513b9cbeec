"""GPTQ against rounding to nearest, and against the method written down column by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ovfast
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.metrics import kl_divergence
from ovfast.quantize.gptq import round_columns

RANDOM = np.random.default_rng(7)


def problem(rows: int, columns: int, group: int, zeros: bool) -> tuple[np.ndarray, ...]:
    """Weights, inputs that excite few directions strongly, scales and zero points."""
    weight = RANDOM.normal(0, 1, (rows, columns)).astype(np.float32)
    mix = RANDOM.normal(0, 1, (columns, columns)) * np.exp(-np.arange(columns) / 8)[:, None]
    x = (RANDOM.normal(0, 1, (400, columns)) @ mix).astype(np.float32)
    groups = weight.reshape(rows, -1, group)
    if zeros:
        low, high = groups.min(-1), groups.max(-1)
        scales = (high - low) / 15
        return weight, x, scales, np.rint(-low / scales).astype(np.float32)
    scales = np.abs(groups).max(-1) / 7
    return weight, x, scales, np.zeros_like(scales)


def expanded(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    rows, columns = codes.shape
    grouped = codes.reshape(rows, scales.shape[1], -1).astype(np.float32)
    return ((grouped - zeros[..., None]) * scales[..., None]).reshape(rows, columns)


def by_the_paper(weight, moment, scales, zeros, lowest, highest):
    """Algorithm 1 in f64, with the inverse updated after each column instead of a Cholesky factor."""
    rows, columns = weight.shape
    group = columns // scales.shape[1]
    order = np.argsort(-np.diag(moment), kind="stable")
    damped = moment.astype(np.float64)
    diagonal = np.diag(damped).copy()
    np.fill_diagonal(damped, diagonal + 0.01 * diagonal.mean())
    inverse = np.linalg.inv(damped)
    left = weight.astype(np.float64)
    codes = np.zeros((rows, columns), np.int8)
    rest = list(order)
    for column in order:
        rest.remove(column)
        scale, zero = scales[:, column // group], zeros[:, column // group]
        codes[:, column] = np.clip(np.rint(left[:, column] / scale + zero), lowest, highest)
        error = left[:, column] - (codes[:, column] - zero) * scale
        row = inverse[column] / inverse[column, column]
        left[:, rest] -= error[:, None] * row[rest]
        inverse = inverse - np.outer(inverse[:, column], row)
    return codes


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("rows", "columns", "group"), [(5, 96, 32), (16, 320, 64), (3, 160, 160)])
def test_codes_are_those_of_the_paper(rows: int, columns: int, group: int, zeros: bool) -> None:
    weight, x, scales, zero_points = problem(rows, columns, group, zeros)
    lowest, highest = (0, 15) if zeros else (-8, 7)
    moment = x.T @ x
    codes = round_columns(weight, moment, scales, zero_points, lowest, highest)
    expected = by_the_paper(weight, moment, scales, zero_points, lowest, highest)
    # f32 against f64: a value half-way between two codes goes either way, and others follow.
    assert (codes == expected).mean() > 0.97
    assert codes.min() >= lowest
    assert codes.max() <= highest

    def error(codes: np.ndarray) -> float:
        return float(np.square((expanded(codes, scales, zero_points) - weight) @ x.T).sum())

    nearest = np.rint(weight.reshape(rows, -1, group) / scales[..., None] + zero_points[..., None])
    plain = np.clip(nearest.reshape(rows, columns), lowest, highest)
    assert error(codes) < 0.5 * error(plain)
    assert error(codes) < 1.05 * error(expected)


def test_columns_that_nothing_excites_are_rounded_to_nearest() -> None:
    weight, x, scales, zeros = problem(4, 64, 32, False)
    x[:, 10:20] = 0
    codes = round_columns(weight, x.T @ x, scales, zeros, -8, 7)
    nearest = np.rint(weight / np.repeat(scales, 32, axis=1)).clip(-8, 7)
    assert (codes[:, 10:20] == nearest[:, 10:20]).all()


@pytest.mark.parametrize("mode", ["int4-sym", "int4-asym"])
def test_model_comes_closer(mode: str, tiny_stock_dirs: dict[str, Path], tmp_path: Path) -> None:
    """On the very texts that it was calibrated with, for which GPTQ is made."""
    pytest.importorskip("nncf")
    source = tiny_stock_dirs["qwen2"]
    text = tmp_path / "text.txt"
    text.write_text(" ".join(str(i * i) for i in range(400)))
    options = {"mode": mode, "group_size": 32, "packed": False, "progress": False}
    ovfast.quantize(source, tmp_path / "plain", **options)
    ovfast.quantize(
        source,
        tmp_path / "gptq",
        gptq=True,
        data=str(text),
        samples=16,
        sample_tokens=64,
        **options,
    )
    llm = ovfast.LLM(source, packed="never", progress=False)
    ids = llm.tokenizer.encode(text.read_text())[:200]
    original = PositionLogits(source, exact=True)(ids)
    kl = {
        name: kl_divergence(original, PositionLogits(tmp_path / name, exact=True)(ids)).mean()
        for name in ("plain", "gptq")
    }
    assert kl["gptq"] < 0.8 * kl["plain"]
