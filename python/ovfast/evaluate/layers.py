"""Which layers lost most: each one's output against the original's for the same input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovfast import _core
from ovfast.evaluate.logits import EXACT, graph_inputs, read_graph
from ovfast.evaluate.worker import load_once
from ovfast.graph import constant_nodes
from ovfast.model_dir import ModelDir

__all__ = ["LayerError", "LayerReport", "rank_layers"]

_OPERATIONS = ("QKV", "FullyConnected", "GatedMLP", "LMHead")
# What unpacking an operation of several layers adds to the name that it had of one of them.
_NAMES_OF_PARTS = (".q", ".down")
_NUMBERED = re.compile(r"^[A-Za-z]+_\d+_(?=.)")


@dataclass(frozen=True)
class LayerError:
    """A linear layer, or an operation that several of them were fused into."""

    name: str
    """In the original's graph, without the number that graphs from GGUF put before it."""
    operation: str
    """"MatMul", or "QKV", "FullyConnected", "GatedMLP", "LMHead" with all that they do."""
    relative_error: float
    """|y' - y| / |y - r|: Frobenius norms over all positions, y and y' the outputs of original and
    model for the original's input, r what a fused operation adds from before."""


@dataclass(frozen=True)
class LayerReport:
    """The layers that both graphs have, the worst first."""

    positions: int
    layers: list[LayerError]
    not_finite: list[str]
    """Layers that make NaN or infinity of the original's inputs; they are not in `layers`."""
    unmatched: list[str]
    """Layers of the model that the original has not by the same name, kind and size."""
    reason: str | None
    """Why there are none."""


def rank_layers(
    model_dir: Path | ModelDir, reference_dir: Path | ModelDir, ids: Sequence[int]
) -> LayerReport:
    """Run the original on `ids` and give every layer of the model the inputs that its layer had.

    All in f32, so that the weights alone make the difference. Layers are matched by name, kind and
    size; of a stock and a packed directory both are taken as packed.
    """
    import openvino as ov

    core = ov.Core()
    graphs = _read_alike(core, model_dir, reference_dir)
    if graphs is None:
        return LayerReport(
            0, [], [], [], "one directory is packed, and the other's weights cannot be packed"
        )
    model, reference = graphs
    ours, theirs = _layers(model), _layers(reference)
    matched = [key for key in ours if key in theirs and _alike(ours[key], theirs[key])]
    unmatched = [key[0] for key in ours if key not in matched]
    if not matched:
        return LayerReport(
            0, [], [], unmatched, "the graphs have no layer of one name, kind and size"
        )
    captured = _capture(core, reference, [theirs[key] for key in matched], ids)
    inputs = [
        [captured[_key(node.input_value(i))] for i in dynamic]
        for node, dynamic in (theirs[key] for key in matched)
    ]
    outputs = _run_alone(core, [ours[key] for key in matched], inputs)
    errors, not_finite = [], []
    for key, mine in zip(matched, outputs, strict=True):
        node, dynamic = theirs[key]
        expected = [captured[_key(port)] for port in node.outputs()]
        if not all(np.isfinite(values).all() for values in (*mine, *expected)):
            not_finite.append(key[0])
            continue
        residual = None
        if node.get_attributes().get("residual"):
            residual = captured[_key(node.input_value(dynamic[-1]))]
        errors.append(
            LayerError(
                key[0],
                node.get_type_name(),
                _relative_error(mine, expected, residual),
            )
        )
    errors.sort(key=lambda one: -one.relative_error)
    return LayerReport(len(ids), errors, not_finite, unmatched, None)


def _read_alike(
    core: Any, model_dir: Path | ModelDir, reference_dir: Path | ModelDir
) -> tuple[Any, Any] | None:
    """Both graphs in one form: stock if both are, else packed; None if one cannot be."""
    directories = [ModelDir.check(path) for path in (model_dir, reference_dir)]
    packed = any(one.packed for one in directories)
    graphs = []
    for one in directories:
        files = one.files
        if packed and not one.packed:
            if files.encrypted:  # what is packed of it is written nowhere
                return None
            folder = _core.inspect_packing(one.path).directory
            if folder == Path():
                load_once(one.path)
                folder = _core.inspect_packing(one.path).directory
            if folder == Path():
                return None
            files = _core.ModelFiles.folder(folder)
        name = one.model_xml.name
        graphs.append(read_graph(files, name, core, packed=packed, exact=True))
    return graphs[0], graphs[1]


def _layers(model: Any) -> dict[tuple[str, str], tuple[Any, list[int]]]:
    """(name, kind) -> node and its inputs that are no constants, of what multiplies by weights."""
    constant = constant_nodes(model)
    found = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        sources = [value.get_node().get_name() for value in node.input_values()]
        dynamic = [i for i, source in enumerate(sources) if source not in constant]
        multiplies = kind in _OPERATIONS or (kind == "MatMul" and len(dynamic) == 1)
        if multiplies and node.get_name() not in constant:
            key = _plain(node.get_friendly_name()), kind
            if key in found:
                key = node.get_friendly_name(), kind
            found[key] = node, dynamic
    return found


def _plain(name: str) -> str:
    # Graphs from GGUF number their nodes, and those of two files differ in that.
    name = _NUMBERED.sub("", name)
    for ending in _NAMES_OF_PARTS:
        name = name.removesuffix(ending)
    return name


def _alike(ours: tuple[Any, list[int]], theirs: tuple[Any, list[int]]) -> bool:
    def widths(node: Any, dynamic: list[int]) -> list[str]:
        shapes = [node.input(i).get_partial_shape() for i in dynamic]
        shapes += [port.get_partial_shape() for port in node.outputs()]
        return [str(shape[shape.rank.get_length() - 1]) for shape in shapes]

    return ours[1] == theirs[1] and widths(*ours) == widths(*theirs)


def _key(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()


def _capture(
    core: Any, reference: Any, layers: Sequence[tuple[Any, list[int]]], ids: Sequence[int]
) -> dict[tuple[str, int], Any]:
    """Inputs and outputs of layers while the original computes `ids`."""
    import openvino as ov
    from openvino import opset13 as ops

    ports = {}
    for node, dynamic in layers:
        for port in [*(node.input_value(i) for i in dynamic), *node.outputs()]:
            ports[_key(port)] = port
    results = [ops.result(port) for port in ports.values()]
    graph = ov.Model(results, reference.get_sinks(), reference.get_parameters(), "captured")
    request = core.compile_model(graph, "CPU", EXACT).create_infer_request()
    values = graph_inputs(ids, 0)
    request.infer({port.get_any_name(): values[port.get_any_name()] for port in graph.inputs})
    return {key: request.get_output_tensor(i).data.copy() for i, key in enumerate(ports)}


def _run_alone(
    core: Any, layers: Sequence[tuple[Any, list[int]]], inputs: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """Outputs of layers, each cut out of its graph and given its `inputs`."""
    import openvino as ov
    from openvino import opset13 as ops

    parameters, feeds, results = [], [], []
    for (node, dynamic), values in zip(layers, inputs, strict=True):
        for i, value in zip(dynamic, values, strict=True):
            port = node.input(i)
            parameter = ops.parameter(port.get_partial_shape(), port.get_element_type())
            port.replace_source_output(parameter.output(0))
            parameters.append(parameter)
            feeds.append(value)
        results += [ops.result(port) for port in node.outputs()]
    graph = ov.Model(results, parameters, "layers")
    request = core.compile_model(graph, "CPU", EXACT).create_infer_request()
    request.infer(dict(enumerate(feeds)))
    outputs = (request.get_output_tensor(i).data.copy() for i in range(len(results)))
    return [[next(outputs) for _ in node.outputs()] for node, _ in layers]


def _relative_error(ours: Sequence[Any], theirs: Sequence[Any], residual: Any | None) -> float:
    difference = signal = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        exact = other.astype(np.float64)
        difference += float(np.sum((mine - exact) ** 2))
        signal += float(np.sum((exact - residual) ** 2 if residual is not None else exact**2))
    return float(np.sqrt(difference / signal)) if signal else float(difference > 0)
