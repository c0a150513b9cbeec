"""Makes one model in each weight format: stock and packed directories, and a GGUF file where it is one.

All come from the weights of one GGUF file, expanded to f32: rounded to nearest in NumPy for the
formats of OpenVINO graphs, by llama.cpp's quantizer for those of GGUF files, by NNCF for its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import openvino as ov
from nncf_model import compressed_weights
from nncf_model import make as make_nncf
from openvino import opset13 as ops

import ovfast
from ovfast import _core

# llama.cpp's names of files whose matrices are all of one type, as far as their columns are a
# multiple of its block. Where they are not (256 for K types), it takes the type in brackets.
_GGUF_TYPES = {
    "Q4_0": ("LLAMA_FTYPE_MOSTLY_Q4_0", ""),
    "Q4_1": ("LLAMA_FTYPE_MOSTLY_Q4_1", ""),
    "Q5_0": ("LLAMA_FTYPE_MOSTLY_Q5_0", ""),
    "Q5_1": ("LLAMA_FTYPE_MOSTLY_Q5_1", ""),
    "Q8_0": ("LLAMA_FTYPE_MOSTLY_Q8_0", ""),
    "Q4_K": ("LLAMA_FTYPE_MOSTLY_Q4_K_S", "Q5_0"),
    "Q5_K": ("LLAMA_FTYPE_MOSTLY_Q5_K_S", "Q5_1"),
    "Q6_K": ("LLAMA_FTYPE_MOSTLY_Q6_K", "Q8_0"),
    "F16": ("LLAMA_FTYPE_MOSTLY_F16", ""),
    "BF16": ("LLAMA_FTYPE_MOSTLY_BF16", ""),
}
# Bits, symmetric, columns of a group (0: whole rows).
_ROUNDED = (
    *((4, symmetric, group) for symmetric in (True, False) for group in (32, 64, 128, 0)),
    *((8, symmetric, group) for symmetric in (True, False) for group in (128, 0)),
)


@dataclass(frozen=True)
class Made:
    """A model in a format. `gguf` is the file whose weights the stock graph may have rounded."""

    stock: Path
    packed: Path
    gguf: Path | None = None


@dataclass(frozen=True)
class Source:
    """The GGUF file, a stock export of it, and a folder to write to."""

    gguf: Path
    stock: Path
    work: Path


def formats() -> dict[str, Callable[[Source], Made]]:
    """Name of each format -> what makes the model in it."""
    made: dict[str, Callable[[Source], Made]] = {
        "GGUF file as it is": lambda source: _export(source.gguf, source.work)
    }
    for bits, symmetric, group in _ROUNDED:
        kind = "symmetric" if symmetric else "asymmetric"
        name = f"int{bits} {kind}, " + (f"groups of {group}" if group else "per channel")
        made[name] = partial(_rounded, bits=bits, symmetric=symmetric, group=group)
    made["NNCF int4 groups of 128, int8 lm_head"] = _nncf
    for kind, (ftype, other) in _GGUF_TYPES.items():
        name = f"GGUF {kind} (else {other})" if other else f"GGUF {kind}"
        made[name] = partial(_requantized, ftype=ftype)
    return made


def gguf_weights(gguf: Path) -> dict[str, np.ndarray]:
    """Matrices of a GGUF file in f32, by the name that they have in the graph made of it."""
    from gguf import GGUFReader, dequantize

    return {
        f"weight.weight_{tensor.name}": dequantize(tensor.data, tensor.tensor_type).astype(
            np.float32, copy=False
        )
        for tensor in GGUFReader(gguf).tensors
        if len(tensor.shape) == 2
    }


_source_weights = cache(gguf_weights)


def _rounded(source: Source, bits: int, symmetric: bool, group: int) -> Made:
    stock = _folder(source.work / "stock")
    model = ov.Core().read_model(source.stock / "openvino_model.xml")
    weights = _source_weights(source.gguf)
    for name, (_, takers) in compressed_weights(model).items():
        weight = _expression(weights[name], bits, symmetric, group)
        weight.set_friendly_name(name)
        for taker in takers:
            taker.replace_source_output(weight.output(0))
    ov.save_model(model, stock / "openvino_model.xml", compress_to_fp16=False)
    _copy_all_but_model(source.stock, stock)
    return Made(stock, _pack(stock, source.work))


def _expression(weight: np.ndarray, bits: int, symmetric: bool, group: int) -> ov.Node:
    """Round a matrix [rows, columns] to nearest: (codes - zero points) * scales, as NNCF writes it."""
    rows, columns = weight.shape
    grouped = weight.reshape(rows, -1, group) if group else weight
    least = 2.0**-24  # of f16, so that a group of zeros has a scale
    if symmetric:
        high = 2 ** (bits - 1) - 1
        scales = _f16(np.maximum(np.abs(grouped).max(-1, keepdims=True) / high, least))
        codes = np.clip(np.rint(grouped / scales), -high, high).astype(np.int8)
        values = ops.convert(_integers(codes, bits, "i"), "f16")
    else:
        high = 2**bits - 1
        low = np.minimum(grouped.min(-1, keepdims=True), 0)
        scales = _f16(
            np.maximum((np.maximum(grouped.max(-1, keepdims=True), 0) - low) / high, least)
        )
        zeros = np.clip(np.rint(-low / scales), 0, high)
        codes = np.clip(np.rint(grouped / scales) + zeros, 0, high).astype(np.uint8)
        zero_points = ops.convert(_integers(zeros.astype(np.uint8), bits, "u"), "f16")
        values = ops.subtract(ops.convert(_integers(codes, bits, "u"), "f16"), zero_points)
    product = ops.multiply(values, ops.constant(scales.astype(np.float16)))
    if group:
        product = ops.reshape(product, ops.constant(np.array([rows, columns])), False)
    return ops.convert(product, "f32")


def _f16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def _integers(codes: np.ndarray, bits: int, sign: str) -> ov.Node:
    if bits == 8:
        return ops.constant(codes)
    pairs = codes.view(np.uint8).reshape(-1, 2) & 15
    tensor = ov.Tensor(getattr(ov.Type, f"{sign}4"), ov.Shape(codes.shape))
    tensor.data.reshape(-1)[:] = pairs[:, 0] | pairs[:, 1] << 4
    return ops.constant(tensor)


def _requantized(source: Source, ftype: str) -> Made:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.pure = True  # every matrix in this type, not a mixture
    parameters.allow_requantize = True
    parameters.ftype = getattr(llama_cpp, ftype)
    file = source.work / "model.gguf"
    if llama_cpp.llama_model_quantize(bytes(source.gguf), bytes(file), parameters) != 0:
        raise RuntimeError(f"llama.cpp cannot write {source.gguf} as {ftype}")
    return _export(file, source.work)


def _export(gguf: Path, work: Path) -> Made:
    made = Made(work / "stock", work / "packed", gguf)
    ovfast.export(gguf, made.stock, packed=False, progress=False)
    ovfast.export(gguf, made.packed, progress=False)
    return made


def _nncf(source: Source) -> Made:
    stock = make_nncf(source.stock, source.work / "stock")
    return Made(stock, _pack(stock, source.work))


def _pack(stock: Path, work: Path) -> Path:
    packed = _folder(work / "packed")
    report = _core.pack_model(stock, packed)
    left = [f"{layer.name}: {layer.reason}" for layer in report.layers if not layer.operation]
    if not report.packed or left:
        raise RuntimeError(f"not all of {stock} was packed: {left or report.notes}")
    return packed


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _copy_all_but_model(source: Path, out: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("openvino_model."):
            shutil.copy2(path, out)
