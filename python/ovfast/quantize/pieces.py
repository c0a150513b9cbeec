"""A graph computed piece by piece, with many inputs each: only one piece's weights are in memory.

What a compiled graph holds is several times what its weights take in 16 bits. So the graph is cut at
places that little passes; what passes is kept for every sample until the next piece takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovfast.graph import constant_nodes

__all__ = ["Key", "Piece", "Runner", "cut", "forget_state", "key_of"]

Key = tuple[str, int]
"""Of an output: the unique name of its node, and its index."""

_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def key_of(output: Any) -> Key:
    """What tells an `openvino.Output` from others of its graph."""
    return output.get_node().get_name(), output.get_index()


@dataclass
class Piece:
    """Consecutive nodes of a graph."""

    nodes: list[Any]
    targets: list[Any] = field(default_factory=list)
    """Those of the nodes that are asked for."""


def forget_state(model: Any) -> None:
    """Let each variable of an `openvino.Model` be what it begins as, in place.

    The graph then computes a text from an empty state.
    """
    import numpy as np
    from openvino import opset13 as ops

    for sink in model.get_sinks():
        model.remove_sink(sink)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ReadValue":
            continue
        if node.get_input_size():
            begin = node.input_value(0)
        else:
            shape = node.get_output_partial_shape(0)
            sizes = [size.get_length() if size.is_static else 0 for size in shape]
            dtype = node.get_output_element_type(0).to_dtype()
            begin = ops.constant(np.zeros(sizes, dtype)).output(0)
        for taker in list(node.output(0).get_target_inputs()):
            taker.replace_source_output(begin)
    for variable in model.get_variables():
        model.remove_variable(variable)
    model.validate_nodes_and_infer_types()


def cut(
    model: Any, targets: Sequence[Any], cost: Callable[[Any, Piece], int], most: int, length: int
) -> list[Piece]:
    """Divide what the targets need into pieces, in an order in which they can be computed.

    Args:
        model: An `openvino.Model` without state.
        targets: Nodes.
        cost: cost(target, piece): what a target adds to a piece that has others already.
        most: Of the sum of costs in a piece; a target that costs more has a piece of its own.
        length: What a size that is not fixed is taken for where places to cut are compared.
    """
    wanted = {node.get_name() for node in targets}
    order = _computed(model, targets)
    passing = _passing(order, length)
    pieces: list[Piece] = []
    begin, spent, current = 0, 0, Piece([])
    last_target = 0
    for position, node in enumerate(order):
        if node.get_name() not in wanted:
            continue
        added = cost(node, current)
        if current.targets and spent + added > most:
            # The later the better: what lies between belongs to the piece that is nearer.
            end = min(range(last_target + 1, position + 1), key=lambda at: (passing[at], -at))
            current.nodes = order[begin:end]
            pieces.append(current)
            begin, spent, current = end, 0, Piece([])
            added = cost(node, current)
        current.targets.append(node)
        spent += added
        last_target = position
    if current.targets:
        current.nodes = order[begin : last_target + 1]
        pieces.append(current)
    return pieces


class Runner:
    """Computes the pieces of a graph, one after another, for all samples.

    The nodes are taken out of the graph for it, which cannot be used afterwards.
    """

    def __init__(self, model: Any, pieces: Sequence[Piece], samples: list[dict[str, Any]]) -> None:
        """`samples`: inputs of `model` by name, NumPy arrays."""
        import openvino as ov

        self._place = {
            node.get_name(): number for number, piece in enumerate(pieces) for node in piece.nodes
        }
        self._pieces = pieces
        self._number = 0
        self._kept: list[dict[Key, Any]] = [{} for _ in samples]
        self._inputs = set()
        for parameter in model.get_parameters():
            key = key_of(parameter.output(0))
            self._inputs.add(key)
            names = parameter.output(0).get_names()
            for kept, sample in zip(self._kept, samples, strict=True):
                value = next(value for name, value in sample.items() if name in names)
                kept[key] = ov.Tensor(value)

    def run(self, wanted: Sequence[Any]) -> Iterator[list[Any]]:
        """Compute the next piece; yield the NumPy arrays of `wanted` outputs, sample after sample.

        They are those of nodes of this piece or before it, and are valid until the next ones.
        """
        import openvino as ov
        from openvino import opset13 as ops

        piece, number = self._pieces[self._number], self._number
        self._number += 1
        taken: dict[Key, Any] = {}

        def parameter(output: Any) -> Any:
            key = key_of(output)
            if key not in taken:
                taken[key] = ops.parameter(output.get_partial_shape(), output.get_element_type())
            return taken[key].output(0)

        for node in piece.nodes:
            for port, source in zip(node.inputs(), node.input_values(), strict=True):
                if self._comes_before(source, number):
                    port.replace_source_output(parameter(source))
        passed = {
            key_of(output): output
            for node in piece.nodes
            for output in node.outputs()
            if any(self._goes_on(taker.get_node(), number) for taker in output.get_target_inputs())
        }
        asked = [
            parameter(output) if self._comes_before(output, number) else output for output in wanted
        ]
        results = [ops.result(output) for output in (*passed.values(), *asked)]
        graph = ov.Model(results, list(taken.values()), f"piece {number}")
        request = ov.Core().compile_model(graph, "CPU", _EXACT).create_infer_request()
        later = self._needed_after(number)
        for kept in self._kept:
            request.infer([kept[key] for key in taken])
            outputs = [request.get_output_tensor(i) for i in range(len(results))]
            yield [tensor.data for tensor in outputs[len(passed) :]]
            for key, tensor in zip(passed, outputs, strict=False):
                kept[key] = ov.Tensor(tensor.element_type, tensor.shape)
                if tensor.size:  # copying nothing crashes (OpenVINO 2026.4.1)
                    tensor.copy_to(kept[key])
            for key in [key for key in kept if key not in later]:
                del kept[key]

    def _comes_before(self, output: Any, number: int) -> bool:
        key = key_of(output)
        return key in self._inputs or self._place.get(key[0], number) < number

    def _goes_on(self, node: Any, number: int) -> bool:
        return self._place.get(node.get_name(), number) > number

    def _needed_after(self, number: int) -> set[Key]:
        return {
            key_of(value)
            for piece in self._pieces[number + 1 :]
            for node in piece.nodes
            for value in node.input_values()
        }


def _computed(model: Any, targets: Sequence[Any]) -> list[Any]:
    """What the targets depend on and is no constant, in order."""
    needed = set()
    waiting = [node.get_name() for node in targets]
    order = model.get_ordered_ops()
    sources = {
        node.get_name(): [value.get_node().get_name() for value in node.input_values()]
        for node in order
    }
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += sources[name]
    needed -= constant_nodes(model)
    return [
        node for node in order if node.get_type_name() != "Parameter" and node.get_name() in needed
    ]


def _passing(order: Sequence[Any], length: int) -> list[int]:
    """About how many numbers pass from the nodes before a position to those from there on."""
    position = {node.get_name(): at for at, node in enumerate(order)}
    change = [0] * (len(order) + 2)
    for at, node in enumerate(order):
        for output in node.outputs():
            takers = (taker.get_node().get_name() for taker in output.get_target_inputs())
            last = max((position[name] for name in takers if name in position), default=at)
            count = 1
            for size in output.get_partial_shape():
                count *= size.get_length() if size.is_static else length
            change[at + 1] += count
            change[last + 1] -= count
    total, found = 0, []
    for step in change[: len(order) + 1]:
        total += step
        found.append(total)
    return found
