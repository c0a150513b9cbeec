"""Graphs computed piece by piece against the whole graph, state and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from ovfast.evaluate.logits import EXACT, graph_inputs
from ovfast.quantize.calibration_graph import open_for_calibration
from ovfast.quantize.gptq import layer_inputs
from ovfast.quantize.pieces import Piece, Runner, cut, forget_state, key_of
from ovfast.quantize.source import read_stock

RANDOM = np.random.default_rng(3)
LENGTHS = (7, 33, 12)


def samples(model: Any) -> list[dict[str, Any]]:
    names = {port.get_any_name() for port in model.inputs}
    found = []
    for length in LENGTHS:
        values = graph_inputs(RANDOM.integers(0, 400, length).tolist(), 0)
        found.append({name: values[name] for name in names})
    return found


def by_the_whole_graph(
    model: Any, outputs: list[Any], inputs: list[dict[str, Any]]
) -> list[list[np.ndarray]]:
    results = [ops.result(output) for output in outputs]
    graph = ov.Model(results, model.get_sinks(), model.get_parameters(), model.get_variables())
    request = ov.Core().compile_model(graph, "CPU", EXACT).create_infer_request()
    found = []
    for sample in inputs:
        request.reset_state()
        request.infer(sample)
        found.append([request.get_output_tensor(i).data.copy() for i in range(len(results))])
    return found


@pytest.mark.parametrize("most", [1, 3, 1000])
@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_values_are_those_of_the_whole_graph(
    name: str, most: int, tiny_stock_dirs: dict[str, Path]
) -> None:
    """Each matrix counts 1: pieces of one, of three, and one piece with all."""
    model = read_stock(tiny_stock_dirs[name], expand=True)
    open_for_calibration(model)
    inputs = samples(model)
    layers = layer_inputs(model)
    order = [node for node in model.get_ordered_ops() if node.get_friendly_name() in layers]
    names = [node.get_friendly_name() for node in order]
    whole = model.clone()
    same = layer_inputs(whole)
    expected = by_the_whole_graph(whole, [same[name][0] for name in names], inputs)

    forget_state(model)
    assert not model.get_variables()
    assert not model.get_sinks()
    pieces = cut(model, order, lambda node, piece: 1, most, max(LENGTHS))
    targets = [[node.get_friendly_name() for node in piece.targets] for piece in pieces]
    assert sorted(layer for some in targets for layer in some) == sorted(names)
    assert all(len(some) <= most for some in targets)
    unique = [node.get_name() for piece in pieces for node in piece.nodes]
    assert len(unique) == len(set(unique))

    runner = Runner(model, pieces, inputs)
    for some in targets:
        found = [
            [values.copy() for values in run]
            for run in runner.run([layers[layer][0] for layer in some])
        ]
        assert len(found) == len(inputs)
        for mine, theirs in zip(found, expected, strict=True):
            for layer, values in zip(some, mine, strict=True):
                right = theirs[names.index(layer)]
                assert values.shape == right.shape
                # Graphs from GGUF keep keys and values in f16, which the pieces do not.
                np.testing.assert_allclose(values, right, rtol=2e-3, atol=2e-3)


def test_cuts_are_where_little_passes() -> None:
    """Between two layers 4, 64 and 1 values pass: the cut is where it is 1."""
    x = ops.parameter([-1, 4], np.float32, "x")
    layers, narrow, y = [], [], x
    for _ in range(3):
        sums = ops.reduce_sum(ops.tile(y, np.array([1, 16])), np.array([1]), True)
        wide = ops.matmul(sums, RANDOM.normal(size=(1, 64)).astype(np.float32), False, False)
        y = ops.matmul(ops.relu(wide), RANDOM.normal(size=(64, 4)).astype(np.float32), False, False)
        layers += [wide, y]
        narrow.append(sums)
    model = ov.Model([y], [x], "narrow and wide")

    def cost(node: Any, piece: Piece) -> int:
        return 1

    pieces = cut(model, layers, cost, 2, 16)
    assert [len(piece.targets) for piece in pieces] == [2, 2, 2]
    passing = {key_of(node.output(0)) for node in narrow}
    inside = [{key_of(node.output(0)) for node in piece.nodes} for piece in pieces]
    for before, after in zip(inside, pieces[1:], strict=False):
        taken = {key_of(value) for node in after.nodes for value in node.input_values()}
        assert len(taken & before & passing) == 1
        assert taken & before <= passing
