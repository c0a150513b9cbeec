"""Small pieces of graph, in the spelling of Optimum Intel's exports and NNCF's weights.

OpenVINO's passes and the plugin's fusions look for it, and so does the rewrite to packed weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from ovfast.export.decoder.plan import Plan, Stored
from ovfast.export.decoder.rope import Rope

__all__ = [
    "Weights",
    "dimension",
    "floats",
    "integers",
    "repeat_heads",
    "rms_norm",
    "rotate",
    "turns",
]


class Weights:
    """The plan's weights as nodes of a graph; constants are parameters for the time being."""

    def __init__(self, plan: Plan) -> None:
        """Make none yet."""
        self._plan = plan
        self._made: dict[str, Any] = {}
        self.parameters: list[Any] = []
        """One for each constant, named as it is."""

    def has(self, name: str) -> bool:
        """Whether the plan has it."""
        return name in self._plan.weights

    def get(self, name: str) -> Any:
        """A vector or matrix in f32; the same node each time."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        weight = self._plan.weights[name]
        node = self._constant(weight.values)
        if weight.values.type == "f32":
            return node
        if weight.scales is not None:
            node = ops.convert(node, "f16")
            if weight.zero_points is not None:
                zeros = ops.convert(self._constant(weight.zero_points), "f16")
                node = ops.subtract(node, zeros)
            node = ops.multiply(node, self._constant(weight.scales))
            node.set_friendly_name(f"{name}/fq_weights_1")
            if weight.format.group:
                node = ops.reshape(node, integers(list(weight.shape)), special_zero=False)
        node = ops.convert(node, "f32")
        node.set_friendly_name(f"{name}/f32")
        return node

    def _constant(self, stored: Stored) -> Any:
        node = ops.parameter(list(stored.shape), getattr(ov.Type, stored.type))
        node.set_friendly_name(stored.name)
        self.parameters.append(node)
        return node


def integers(values: int | list[int]) -> Any:
    """A constant i64."""
    return ops.constant(np.array(values, np.int64))


def floats(values: Any) -> Any:
    """A constant f32."""
    return ops.constant(np.array(values, np.float32))


def dimension(node: Any, axis: int) -> Any:
    """One dimension of a tensor, i64 [1]."""
    return ops.gather(ops.shape_of(node, "i64"), integers([axis]), integers(0))


def rms_norm(x: Any, gamma: Any, epsilon: float) -> Any:
    """x / sqrt(mean(x^2) + epsilon) * gamma over the last dimension."""
    squares = ops.power(x, floats(2.0))
    mean = ops.reduce_mean(squares, integers([-1]), keep_dims=True)
    root = ops.sqrt(ops.add(mean, floats(epsilon)))
    return ops.multiply(gamma, ops.multiply(x, ops.divide(floats(1.0), root)))


def turns(rope: Rope, positions: Any, factor: float) -> tuple[Any, Any]:
    """Cosines and sines f32 [batch, 1, tokens, dims] of positions i64 [batch, tokens]."""
    at = ops.convert(ops.unsqueeze(positions, integers(-1)), "f32")
    angles = ops.multiply(at, floats(rope.inv_freq.reshape(1, 1, -1)))
    both = ops.concat([angles, angles], -1)
    pair = (ops.cos(both), ops.sin(both))
    if factor != 1.0:
        pair = tuple(ops.multiply(values, floats(factor)) for values in pair)
    return tuple(ops.unsqueeze(values, integers(1)) for values in pair)


def rotate(x: Any, cosines: Any, sines: Any, dims: int, size: int) -> Any:
    """Turn the first `dims` of `size` channels of [batch, heads, tokens, size]."""
    rest = None
    if dims < size:
        x, rest = _channels(x, 0, dims), _channels(x, dims, size)
    half = dims // 2
    turned = ops.concat(
        [ops.multiply(_channels(x, half, dims), floats(-1.0)), _channels(x, 0, half)], -1
    )
    x = ops.add(ops.multiply(x, cosines), ops.multiply(turned, sines))
    return x if rest is None else ops.concat([x, rest], -1)


def repeat_heads(x: Any, heads: int, kv_heads: int, size: int) -> Any:
    """[batch, kv_heads, tokens, size] -> [batch, heads, tokens, size], each head several times."""
    if heads == kv_heads:
        return x
    shape = integers([1, 1, heads // kv_heads, 1, 1])
    repeated = ops.broadcast(ops.unsqueeze(x, integers(2)), shape, broadcast_spec="BIDIRECTIONAL")
    return ops.reshape(repeated, integers([0, heads, -1, size]), special_zero=True)


def _channels(x: Any, first: int, last: int) -> Any:
    return ops.slice(x, integers([first]), integers([last]), integers([1]), integers([3]))
