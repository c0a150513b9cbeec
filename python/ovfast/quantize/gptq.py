"""GPTQ: weights are rounded column after column, and the columns that follow make up for the error.

Elias Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323. The format, with its scales and zero points, is what NNCF chose;
only codes change. Columns go in the order of how strongly texts excite them.

NNCF has a GPTQ of its own, which takes many minutes for a model of half a billion weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import ModelError
from ovfast.quantize.expand import Weight, affine_parts, constant_of, numbers_of, weights_of

__all__ = ["improve_codes", "layer_inputs", "round_columns"]

Floats = npt.NDArray[np.float32]

# Of codes: type -> smallest, largest.
_RANGES = {"i4": (-8, 7), "u4": (0, 15)}
_BLOCK = 32  # columns after which the rest is brought up to date, in one product
_ROWS = 1024  # of inputs that are multiplied with themselves at a time
_DAMPING = 0.01  # of the mean of the diagonal; the paper's
_MOST_BYTES = 1 << 30  # of second moments at a time; each time all texts go through the model
_EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}


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
    wanted = [name for name in inputs if name in layers]
    done = 0
    for names in _portions(wanted, inputs):
        moments = _second_moments(original, names, inputs, samples)
        for name in names:
            progress(done / len(wanted), "rounding column by column (GPTQ)")
            _improve(layers[name], inputs[name][1], moments[_key(inputs[name][0])])
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
    factor = _inverse_factor(moment[np.ix_(order, order)])
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
        left[last:] -= factor[first:last, last:].T @ errors
    return np.ascontiguousarray(codes.T)


def _inverse_factor(moment: Floats) -> Floats:
    """Upper Cholesky factor of the inverse of the damped matrix."""
    from scipy.linalg import lapack

    damped = moment.copy()
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = 1.0  # columns that nothing excites
    np.fill_diagonal(damped, diagonal + np.float32(_DAMPING) * diagonal.mean())
    factor, fault = lapack.spotrf(damped, lower=1)
    if fault == 0:
        inverse, fault = lapack.spotri(factor, lower=1, overwrite_c=1)
    if fault == 0:
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        factor, fault = lapack.spotrf(inverse, lower=0, overwrite_a=1)
    if fault != 0:
        raise ModelError("the activations of a layer say too little to round by (GPTQ)")
    return np.ascontiguousarray(np.triu(factor))


def _has_codes(weight: Weight) -> bool:
    parts = affine_parts(weight.output)
    return parts is not None and parts[1].get_element_type().get_type_name() in _RANGES


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_name(), output.get_index()


def _portions(names: list[str], inputs: dict[str, tuple[Any, Any]]) -> Iterator[list[str]]:
    """Names in their order, as many at a time as have room for second moments."""
    portion: list[str] = []
    keys: dict[tuple[str, int], int] = {}
    for name in names:
        output, constant = inputs[name]
        keys[_key(output)] = 4 * constant.get_output_shape(0)[1] ** 2
        if portion and sum(keys.values()) > _MOST_BYTES:
            yield portion
            portion, keys = [], {_key(output): keys[_key(output)]}
        portion.append(name)
    if portion:
        yield portion


def _second_moments(
    original: Any,
    names: list[str],
    inputs: dict[str, tuple[Any, Any]],
    samples: list[dict[str, Any]],
) -> dict[tuple[str, int], Floats]:
    import openvino as ov
    from openvino import opset13 as ops

    outputs = {_key(inputs[name][0]): inputs[name][0] for name in names}
    results = [ops.result(output) for output in outputs.values()]
    model = ov.Model(
        results, original.get_sinks(), original.get_parameters(), original.get_variables(), "inputs"
    )
    request = ov.Core().compile_model(model, "CPU", _EXACT).create_infer_request()
    moments: dict[tuple[str, int], Floats] = {}
    rows: dict[tuple[str, int], list[Floats]] = {key: [] for key in outputs}

    def add(key: tuple[str, int]) -> None:
        x = np.concatenate(rows[key])
        if not np.isfinite(x).all():
            raise ModelError(f"the input of a layer is not finite: '{key[0]}'")
        product = x.T @ x
        if key in moments:
            moments[key] += product
        else:
            moments[key] = product
        rows[key].clear()

    for sample in samples:
        request.reset_state()
        request.infer(sample)
        for i, key in enumerate(outputs):
            data = request.get_output_tensor(i).data
            rows[key].append(np.array(data, np.float32).reshape(-1, data.shape[-1]))
            if sum(map(len, rows[key])) >= _ROWS or sample is samples[-1]:
                add(key)
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
