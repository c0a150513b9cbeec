"""Compressed weights back to f16, one by one, so that another compression starts from numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ovfast.errors import ModelError
from ovfast.graph import constant_nodes
from ovfast.quantize.halves import HALVES_SUFFIX, Halves, as_constant, empty_halves

__all__ = [
    "Weight",
    "affine_parts",
    "compressed_weights",
    "constant_of",
    "decompress",
    "expand",
    "let_go_of_file",
    "numbers_of",
    "weights_of",
]

# Which input of an operation is its weight.
_POSITIONS = {"MatMul": 1, "Gather": 0, "FullyConnected": 1}
_BLOCK_BYTES = 16 << 20
_NIBBLES = ("u4", "i4")
_BYTES = ("u8", "i8")


class Weight(NamedTuple):
    """What a graph computes from constants alone and multiplies or gathers from."""

    output: Any
    """`openvino.Output` of the node that gives it."""
    takers: list[Any]
    """`openvino.Input`s that read it; they live as long as the model does."""

    @property
    def name(self) -> str:
        """Friendly name of the node that gives it."""
        return str(self.output.get_node().get_friendly_name())

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.output.get_shape())


def weights_of(model: Any) -> list[Weight]:
    """Weights of MatMul and Gather in an `openvino.Model` (those that have at least a matrix)."""
    found: dict[str, Weight] = {}
    constant = constant_nodes(model)
    for node in model.get_ordered_ops():
        position = _POSITIONS.get(node.get_type_name())
        if position is None or node.get_name() in constant:
            continue
        source = node.input_value(position).get_node()
        if source.get_name() in constant and len(source.output(0).get_partial_shape()) > 1:
            weight = Weight(source.output(0), [])
            found.setdefault(source.get_name(), weight).takers.append(node.input(position))
    return list(found.values())


def constant_of(weight: Weight) -> Any:
    """The constant behind conversions alone, or None for a weight that is computed."""
    node = weight.output.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def compressed_weights(model: Any) -> dict[str, Weight]:
    """Weights that are stored in another form than numbers, by name.

    Those are computed (scales, zero points), or constants of 8 bits or less.
    """
    return {weight.name: weight for weight in weights_of(model) if _is_compressed(weight)}


def decompress(output: Any, scratch: Path | None = None) -> Halves:
    """Compute a weight that depends on constants alone: f16, of the output's shape.

    Products are rounded once. A folder `scratch` holds it on disk. Raises ModelError when the graph
    cannot be evaluated.
    """
    parts = affine_parts(output)
    if parts is None:
        return _evaluate(output)
    shape, *constants = parts
    values = empty_halves(shape, scratch)
    _fill(values, *constants)
    return values


def expand(
    model: Any,
    progress: Callable[[float, str], object] | None = None,
    scratch: Path | None = None,
) -> int:
    """Turn compressed weights into f16 constants, in place; how many there were.

    A folder `scratch` holds them on disk; otherwise all are in memory. Raises as `decompress`.
    """
    from openvino import opset13 as ops

    weights = sorted(compressed_weights(model).values(), key=lambda weight: -weight.size)
    total, done = sum(weight.size for weight in weights), 0
    for weight in weights:
        if progress is not None:
            progress(done / total, "expanding the weights to f16")
        constant = as_constant(decompress(weight.output, scratch), weight.name)
        plain = ops.convert(constant, weight.output.get_element_type().get_type_name())
        plain.set_friendly_name(weight.name)
        for taker in weight.takers:
            taker.replace_source_output(plain.output(0))
        done += weight.size
    return len(weights)


def let_go_of_file(model: Any) -> None:
    """Copy small constants, so that a mapped file of which all others were replaced is closed.

    Until then the pages of it that were read count as this process's memory.
    """
    import openvino as ov

    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_byte_size() > _BLOCK_BYTES:
            continue
        kind = node.get_element_type()
        if kind == ov.Type.string or node.get_friendly_name().endswith(HALVES_SUFFIX):
            continue
        lying = ov.Tensor(np.array(node.data), ov.Shape(node.get_output_shape(0)), kind)
        copy = ov.op.Constant(lying, shared_memory=False)
        copy.set_friendly_name(node.get_friendly_name())
        for taker in list(node.output(0).get_target_inputs()):
            taker.replace_source_output(copy.output(0))


def numbers_of(scales: Any, rows: int) -> npt.NDArray[np.float32]:
    """Return a constant of scales or zero points as f32 [rows, groups]."""
    numbers: npt.NDArray[np.float32] = scales.get_data(dtype=np.float32)
    numbers = numbers.reshape(numbers.shape[0], -1) if numbers.ndim else numbers.reshape(1, 1)
    return np.broadcast_to(numbers, (rows, numbers.shape[1]))


def _is_compressed(weight: Weight) -> bool:
    constant = constant_of(weight)
    return constant is None or constant.get_element_type().get_bitwidth() <= 8


def affine_parts(output: Any) -> tuple[list[int], Any, Any | None, Any | None] | None:
    """Shape, and constants of codes, zero points and scales of (codes - zero points) * scales.

    None for a weight of another form; constants that the form lacks are None.
    """
    shape = list(output.get_shape())
    node = _behind(output, ("Convert", "Reshape"))
    scales = None
    if node.get_type_name() == "Multiply":
        scales = _behind(node.input_value(1), ("Convert",))
        node = _behind(node.input_value(0), ("Convert",))
    zero_points = None
    if node.get_type_name() == "Subtract":
        zero_points = _behind(node.input_value(1), ("Convert",))
        node = _behind(node.input_value(0), ("Convert",))
    for part in (node, zero_points, scales):
        if part is not None and part.get_type_name() != "Constant":
            return None
    if node.get_element_type().get_type_name() not in _NIBBLES + _BYTES:
        return None
    return shape, node, zero_points, scales


def _behind(output: Any, kinds: tuple[str, ...]) -> Any:
    node = output.get_node()
    while node.get_type_name() in kinds:
        node = node.input_value(0).get_node()
    return node


def _fill(values: Halves, codes: Any, zero_points: Any | None, scales: Any | None) -> None:
    stored = list(codes.get_output_shape(0))
    kind = codes.get_element_type().get_type_name()
    values = values.reshape(stored)
    data = codes.data
    if kind in _NIBBLES and math.prod(stored[1:]) % 2:
        stored = [1, *stored]  # rows do not begin at bytes
        values = values.reshape(stored)
    rows, inner = stored[0], math.prod(stored[1:])
    data = data.reshape(rows, -1)
    zero = None if zero_points is None else zero_points.get_data(dtype=np.float32)
    scale = None if scales is None else scales.get_data(dtype=np.float32)
    block = max(1, _BLOCK_BYTES // (4 * inner))
    for first in range(0, rows, block):
        part = slice(first, first + block)
        numbers = _numbers(data[part], kind)
        numbers = numbers[:, :inner].reshape(values[part].shape)
        if zero is not None:
            numbers -= _rows(zero, part, stored)
        if scale is not None:
            numbers *= _rows(scale, part, stored)
        with np.errstate(over="ignore"):  # infinities are looked for later, by name
            values[part] = numbers


def _rows(values: npt.NDArray[np.float32], part: slice, stored: list[int]) -> Any:
    """Scales or zero points of some rows of the codes; they broadcast to the rest."""
    whole = values.ndim < len(stored) or values.shape[0] == 1
    return values if whole or values.shape[0] != stored[0] else values[part]


def _numbers(data: npt.NDArray[Any], kind: str) -> npt.NDArray[np.float32]:
    """Codes as f32 [rows, columns]; the first of two nibbles is the low one."""
    if kind not in _NIBBLES:
        return data.reshape(len(data), -1).astype(np.float32)
    # i4 is two's complement: flipping the sign bit gives the value plus 8.
    flip, offset = (0x88, 8) if kind == "i4" else (0, 0)
    pairs = data.view(np.uint8) ^ np.uint8(flip)
    out = np.empty((*pairs.shape, 2), np.float32)
    out[..., 0] = pairs & 15
    out[..., 1] = pairs >> 4
    out -= np.float32(offset)
    return out.reshape(len(data), -1)


def _evaluate(output: Any) -> Halves:
    import openvino as ov

    value = ov.Tensor(output.get_element_type(), output.get_shape())
    name = output.get_node().get_friendly_name()
    if not ov.Model([output], []).evaluate([value], []):
        raise ModelError(f"the weight '{name}' is stored in a form that cannot be expanded to f16")
    with np.errstate(over="ignore"):
        return np.asarray(value.data).astype(np.float16)
