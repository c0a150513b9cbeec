"""GPTQ: weights are rounded column after column, and the columns that follow make up for the error.

Elias Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323. The format, with its scales and zero points, is what NNCF chose;
only codes change. Columns go in the order of how strongly texts excite them.

NNCF has a GPTQ of its own, which takes many minutes for a model of half a billion weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import ModelError
from ovfast.quantize.expand import Weight, affine_parts, constant_of, numbers_of, weights_of
from ovfast.quantize.halves import let_go
from ovfast.quantize.pieces import Key, Piece, Runner, cut, forget_state, key_of

__all__ = ["improve_codes", "layer_inputs", "round_columns"]

Floats = npt.NDArray[np.float32]

# Of codes: type -> smallest, largest.
_RANGES = {"i4": (-8, 7), "u4": (0, 15)}
_BLOCK = 128  # columns after which the rest is brought up to date, in one product
_ROWS = 1024  # of inputs that are multiplied with themselves at a time
_DAMPING = 0.01  # of the mean of the diagonal; the paper's
_MOST_BYTES = 256 << 20  # of second moments and compiled weights at a time


def layer_inputs(model: Any) -> dict[str, tuple[Any, Any]]:
    """Products with a matrix [rows, columns] of floats: name -> output multiplied, its constant.

    They live as long as the model does.
    """
    found = {}
    for weight in weights_of(model):
        constant = constant_of(weight)
        if constant is None or len(weight.output.get_shape()) != 2:
            continue
        for taker in weight.takers:
            node = taker.get_node()
            if node.get_type_name() == "MatMul" and node.get_attributes()["transpose_b"]:
                found[node.get_friendly_name()] = (node.input_value(0), constant)
    return found


def improve_codes(
    compressed: Any,
    original: Any,
    samples: list[dict[str, Any]],
    progress: Callable[[float, str], object],
) -> int:
    """Round the 4-bit codes of a graph anew, in place.

    Args:
        compressed: `openvino.Model` with weights as NNCF compresses them.
        original: The graph with float weights that it was made of, as it is calibrated.
        samples: Inputs of the original, each of them a text from an empty state.
        progress: progress(fraction, what), now and then.

    Returns how many matrices there were. Raises ModelError when an activation is not finite.
    """
    inputs = layer_inputs(original)
    layers = {
        taker.get_node().get_friendly_name(): weight
        for weight in weights_of(compressed)
        for taker in weight.takers
        if _has_codes(weight)
    }
    wanted = [
        node
        for node in original.get_ordered_ops()
        if node.get_friendly_name() in inputs.keys() & layers
    ]
    for _, constant in inputs.values():
        let_go(constant.data)  # compression has read it
    forget_state(original)

    def cost(node: Any, piece: Piece) -> int:
        output, constant = inputs[node.get_friendly_name()]
        rows, columns = (int(size) for size in constant.get_output_shape(0))
        there = {key_of(inputs[one.get_friendly_name()][0]) for one in piece.targets}
        # The plugin holds weights in f32, and once more in the order in which it reads them.
        return 8 * rows * columns + (0 if key_of(output) in there else 4 * columns**2)

    length = max(array.size for sample in samples for array in sample.values())
    pieces = cut(original, wanted, cost, _MOST_BYTES, length)
    runner = Runner(original, pieces, samples)
    done = 0
    for piece in pieces:
        progress(done / len(wanted), "running the calibration texts (GPTQ)")
        names = [node.get_friendly_name() for node in piece.targets]
        outputs = {key_of(inputs[name][0]): inputs[name][0] for name in names}
        moments = _second_moments(outputs, runner.run(list(outputs.values())))
        for name in names:
            progress(done / len(wanted), "rounding column by column (GPTQ)")
            output, constant = inputs[name]
            _improve(layers[name], constant, moments[key_of(output)])
            let_go(constant.data)
            done += 1
    return done


def round_columns(
    weight: Floats, moment: Floats, scales: Floats, zeros: Floats, lowest: int, highest: int
) -> npt.NDArray[np.int8]:
    """Choose codes for which (codes - zeros) * scales is close to `weight` on what it multiplies.

    Args:
        weight: f32 [rows, columns].
        moment: f32 [columns, columns], sum of x xT over inputs x of the layer.
        scales: f32 [rows, groups]; groups of equal size share one.
        zeros: The same, zero points.
        lowest: Smallest code.
        highest: Largest code.

    Returns int8 [rows, columns].
    """
    rows, columns = weight.shape
    group = columns // scales.shape[1]
    order = np.argsort(-np.diag(moment), kind="stable")
    factor = _inverse_factor(moment, order)
    left = np.ascontiguousarray(weight[:, order].T)  # a column at a time is then contiguous
    codes = np.empty((columns, rows), np.int8)
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        errors = np.empty((last - first, rows), np.float32)
        for i in range(first, last):
            scale, zero = scales[:, order[i] // group], zeros[:, order[i] // group]
            inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
            code = np.clip(np.rint(left[i] * inverse + zero), lowest, highest)
            codes[order[i]] = code
            error = (left[i] - (code - zero) * scale) / factor[i, i]
            left[i + 1 : last] -= factor[i, i + 1 : last, None] * error
            errors[i - first] = error
        left[last:] -= np.ascontiguousarray(factor[first:last, last:]).T @ errors
    return np.ascontiguousarray(codes.T)


def _inverse_factor(moment: Floats, order: npt.NDArray[np.intp]) -> Floats:
    """Upper Cholesky factor of the inverse of the damped matrix, its columns in that order."""
    from scipy.linalg import lapack

    # From the last to the first, H = L LT; the other way round that is R RT with an upper R, whose
    # inverse is the factor.
    turned = order[::-1]
    damped = moment[np.ix_(turned, turned)]
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = 1.0  # columns that nothing excites
    np.fill_diagonal(damped, diagonal + np.float32(_DAMPING) * diagonal.mean())
    # It is symmetric; transposed it is as LAPACK wants it, and no copy.
    factor, fault = lapack.spotrf(damped.T, lower=1, overwrite_a=1)
    if fault == 0:
        factor, fault = lapack.strtri(factor, lower=1, overwrite_c=1)
    if fault != 0:
        raise ModelError("the activations of a layer say too little to round by (GPTQ)")
    upper: Floats = factor[::-1, ::-1]
    return upper


def _has_codes(weight: Weight) -> bool:
    parts = affine_parts(weight.output)
    return parts is not None and parts[1].get_element_type().get_type_name() in _RANGES


def _second_moments(outputs: dict[Key, Any], runs: Iterable[list[Any]]) -> dict[Key, Floats]:
    """Sums of x xT over the values of the outputs in all runs."""
    from scipy.linalg import blas

    moments: dict[Key, Floats] = {}
    rows: dict[Key, list[Floats]] = {key: [] for key in outputs}

    def add(key: Key) -> None:
        x = np.concatenate(rows[key])
        rows[key].clear()
        if not np.isfinite(x).all():
            raise ModelError(f"the input of a layer is not finite: '{key[0]}'")
        if key not in moments:
            moments[key] = np.zeros((x.shape[1], x.shape[1]), np.float32, order="F")
        blas.ssyrk(1.0, x.T, 1.0, moments[key], lower=1, overwrite_c=1)

    for values in runs:
        for key, data in zip(outputs, values, strict=True):
            rows[key].append(np.array(data, np.float32).reshape(-1, data.shape[-1]))
            if sum(map(len, rows[key])) >= _ROWS:
                add(key)
    for key in outputs:
        if rows[key]:
            add(key)
        moment = moments[key]
        for first in range(0, len(moment), _ROWS):  # ssyrk writes one half
            part, rest = slice(first, first + _ROWS), slice(first + _ROWS, None)
            moment[part, part] += np.tril(moment[part, part], -1).T
            moment[part, rest] = moment[rest, part].T
    return moments


def _improve(weight: Weight, constant: Any, moment: Floats) -> None:
    import openvino as ov

    parts = affine_parts(weight.output)
    assert parts is not None
    (rows, _), codes, zero_points, scales = parts
    kind = codes.get_element_type()
    lowest, highest = _RANGES[kind.get_type_name()]
    scale = numbers_of(scales, rows)
    zero = np.zeros_like(scale) if zero_points is None else numbers_of(zero_points, rows)
    values = constant.get_data(dtype=np.float32)
    found = round_columns(values, moment, scale, zero, lowest, highest)
    nibbles = found.reshape(-1, 2).astype(np.uint8) & 15
    packed = nibbles[:, 0] | (nibbles[:, 1] << 4)
    lying = ov.Tensor(packed, ov.Shape(codes.get_output_shape(0)), kind)
    better = ov.op.Constant(lying, shared_memory=False)
    better.set_friendly_name(codes.get_friendly_name())
    for taker in list(codes.output(0).get_target_inputs()):
        taker.replace_source_output(better.output(0))
