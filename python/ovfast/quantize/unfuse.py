"""ovfast's operations on packed weights, in a graph, replaced by OpenVINO's own with f16 weights.

As cpp/ops/unfused.cpp does it for graphs in memory, but for graphs that Python holds: one layer
after another, the largest first, with names that tell the layers of one operation apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ovfast import _core
from ovfast.errors import ModelError
from ovfast.quantize.halves import as_constant, empty_halves

__all__ = ["is_packed_operation", "unfuse"]

Progress = Callable[[float, str], object]


def unfuse(model: Any, progress: Progress | None = None, scratch: Path | None = None) -> int:
    """Replace ovfast's operations in an `openvino.Model`, in place; how many there were.

    Weights that are f16 values keep them; others, products of codes and scales, are rounded to f16.
    A folder `scratch` holds them on disk; otherwise all are in memory. Raises ModelError when packed weights are damaged or an operation is unknown.
    """
    nodes = [node for node in model.get_ordered_ops() if is_packed_operation(node)]
    unfuser = _Unfuser(scratch)
    nodes.sort(key=lambda node: -max(_packed_sizes(node)))
    for done, node in enumerate(nodes):
        if progress is not None:
            progress(done / len(nodes), "unpacking the weights to f16")
        make = unfuser.makers.get(node.get_type_name())
        if make is None:
            raise ModelError(
                f"'{node.get_friendly_name()}' is a {node.get_type_name()}, which cannot be "
                "unpacked; export the model again with --no-pack"
            )
        for port, output in enumerate(make(node)):
            for taker in list(node.output(port).get_target_inputs()):
                taker.replace_source_output(output)
    if nodes:
        model.validate_nodes_and_infer_types()
    return len(nodes)


def is_packed_operation(node: Any) -> bool:
    """Whether a node of an `openvino.Model` is one of ovfast's operations."""
    return bool(node.get_type_info().version_id == "ovfast")


def _packed_sizes(node: Any) -> list[int]:
    constants = [value.get_node() for value in node.input_values()]
    return [
        constant.get_byte_size()
        for constant in constants
        if constant.get_type_name() == "Constant"
        and constant.get_element_type().get_type_name() == "u8"
    ]


class _Unfuser:
    def __init__(self, scratch: Path | None) -> None:
        self._scratch = scratch
        self.makers: dict[str, Callable[[Any], list[Any]]] = {
            "FullyConnected": self._fully_connected,
            "QKV": self._qkv,
            "GatedMLP": self._gated_mlp,
            "Embedding": self._embedding,
            "LMHead": self._lm_head,
        }
        # A constant that several nodes share is unpacked once.
        self._unpacked: dict[str, Any] = {}

    def _weights(self, node: Any, index: int, name: str, *, plus: int | None = None) -> Any:
        """Output of f32 [rows, columns]; the sum of two inputs if there is a second."""
        from openvino import opset13 as ops

        key = node.input_value(index).get_node().get_name()
        if key not in self._unpacked:
            numbers = _unpack(node, index)
            if plus is not None:
                numbers += _unpack(node, plus)
            values = empty_halves(numbers.shape, self._scratch)
            with np.errstate(over="ignore"):  # infinities are looked for later, by name
                np.copyto(values, numbers, casting="same_kind")
            constant = as_constant(values, f"{name}.weight")
            plain = ops.convert(constant, "f32")
            plain.set_friendly_name(f"{name}.weight")
            self._unpacked[key] = plain.output(0)
        return self._unpacked[key]

    def _linear(self, node: Any, x: Any, index: int, name: str, *, plus: int | None = None) -> Any:
        from openvino import opset13 as ops

        product = ops.matmul(x, self._weights(node, index, name, plus=plus), False, True)
        product.set_friendly_name(name)
        return product.output(0)

    def _input(self, node: Any, gamma: int | None) -> Any:
        """The first input; normalized when the node does that, with the gamma at that index."""
        from openvino import opset13 as ops

        x = node.input_value(0)
        if gamma is None:
            return x
        mean = ops.reduce_mean(ops.multiply(x, x), np.array([-1], np.int64), True)
        epsilon = np.float32(node.get_attributes()["epsilon"])
        root = ops.sqrt(ops.add(mean, ops.constant(epsilon)))
        return ops.multiply(ops.divide(x, root), node.input_value(gamma)).output(0)

    def _fully_connected(self, node: Any) -> list[Any]:
        attributes, name = node.get_attributes(), node.get_friendly_name()
        rest = iter(range(2, 5))
        x = self._input(node, next(rest) if attributes["norm"] else None)
        y = self._linear(node, x, 1, name)
        if attributes["bias"]:
            y = _sum(y, node.input_value(next(rest)))
        if attributes["residual"]:
            y = _sum(y, node.input_value(next(rest)))
        return [y]

    def _qkv(self, node: Any) -> list[Any]:
        attributes, name = node.get_attributes(), node.get_friendly_name()
        rest = iter(range(4, 8))
        x = self._input(node, next(rest) if attributes["norm"] else None)
        outputs = []
        for part, letter in enumerate("qkv"):
            y = self._linear(node, x, 1 + part, f"{name}.{letter}")
            if attributes["biases"] >> part & 1:
                y = _sum(y, node.input_value(next(rest)))
            outputs.append(y)
        return outputs

    def _gated_mlp(self, node: Any) -> list[Any]:
        from openvino import opset13 as ops

        attributes, name = node.get_attributes(), node.get_friendly_name()
        rest = iter(range(4, 6))
        x = self._input(node, next(rest) if attributes["norm"] else None)
        gate = self._linear(node, x, 1, f"{name}.gate")
        if attributes["gate"] == "silu":
            gate = ops.swish(gate)
        else:
            gate = ops.gelu(gate, "tanh" if attributes["gate"] == "gelu_tanh" else "erf")
        product = ops.multiply(gate, self._linear(node, x, 2, f"{name}.up"))
        y = self._linear(node, product, 3, f"{name}.down")
        return [_sum(y, node.input_value(next(rest))) if attributes["residual"] else y]

    def _embedding(self, node: Any) -> list[Any]:
        from openvino import opset13 as ops

        name = node.get_friendly_name()
        table = self._weights(node, 1, name)
        gather = ops.gather(table, node.input_value(0), ops.constant(np.int64(0)))
        gather.set_friendly_name(name)
        return [gather.output(0)]

    def _lm_head(self, node: Any) -> list[Any]:
        gamma = 6 if node.get_attributes()["norm"] else None
        x = self._input(node, gamma)
        return [self._linear(node, x, 1, node.get_friendly_name(), plus=2)]


def _sum(left: Any, right: Any) -> Any:
    from openvino import opset13 as ops

    return ops.add(left, right).output(0)


def _unpack(node: Any, index: int) -> Any:
    constant = node.input_value(index).get_node()
    try:
        return _core.unpack_weights(constant.data)
    except ValueError as error:
        raise ModelError(
            f"the packed weights of '{node.get_friendly_name()}' (input {index}) are damaged: "
            f"{error}. Export or pack the model again."
        ) from error
