"""Graphs with f16 weights of model directories in any form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from conftest import TinyModel
from gguf import GGMLQuantizationType as Type
from openvino import opset13 as ops
from tiny_models import ARCHITECTURES, Shape, write_gguf

import ovfast
from ovfast.evaluate.logits import PositionLogits
from ovfast.model_dir import ModelDir
from ovfast.quantize import halves
from ovfast.quantize.calibration_graph import close_after_calibration, open_for_calibration
from ovfast.quantize.detect import describe_quantization
from ovfast.quantize.expand import compressed_weights, decompress, weights_of
from ovfast.quantize.source import read_stock

IDS = list(range(5, 45))
RANDOM = np.random.default_rng(0)


def evaluated(output: Any) -> np.ndarray:
    """What OpenVINO itself computes of a constant graph, in the graph's own precision."""
    value = ov.Tensor(output.get_element_type(), output.get_shape())
    assert ov.Model([output], []).evaluate([value], [])
    return np.array(value.data)


def affine(kind: str, shape: list[int], *, zero: bool, scales: str, groups: bool) -> Any:
    """(codes - zero points) * scales, as NNCF writes it; groups are joined."""
    count = int(np.prod(shape))
    low = -8 if kind == "i4" else -128 if kind == "i8" else 0
    high = low + (16 if "4" in kind else 256)
    dtype = np.int8 if kind[0] == "i" else np.uint8
    values = RANDOM.integers(low, high, count).astype(dtype).reshape(shape)
    codes = ops.convert(ops.constant(values, dtype=getattr(ov.Type, kind)), scales)
    per_group = [*shape[:-1], 1]
    if zero:
        zeros = RANDOM.integers(0, 16, per_group).astype(np.uint8)
        codes = ops.subtract(codes, ops.convert(ops.constant(zeros), scales))
    factors = RANDOM.normal(0, 1, per_group).astype(np.float16 if scales == "f16" else np.float32)
    product = ops.multiply(codes, ops.constant(factors))
    if groups:
        product = ops.reshape(product, np.array([shape[0], -1]), False)
    return ops.convert(product, "f32").output(0)


@pytest.mark.parametrize("kind", ["i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("scales", ["f16", "f32"])
@pytest.mark.parametrize("shape", [[6, 4, 32], [6, 32], [5, 7], [3, 1, 5]], ids=str)
def test_decompressed_as_openvino_does(
    kind: str, zero: bool, scales: str, shape: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovfast.quantize.expand._BLOCK_BYTES", 300)  # several blocks of rows
    output = affine(kind, shape, zero=zero, scales=scales, groups=len(shape) == 3)
    expected = evaluated(output)
    got = decompress(output)
    assert got.dtype == np.float16
    assert got.shape == expected.shape
    # One rounding to f16 each; in f16 graphs the very numbers.
    tolerance = 0 if scales == "f16" else 2**-11
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=1e-7)


def test_what_is_not_affine_is_evaluated() -> None:
    table = ops.constant(np.array([0.5, -1.5, 3.0], np.float32))
    indices = ops.constant(np.array([[0, 2], [1, 1]], np.int32))
    output = ops.gather(table, indices, ops.constant(0)).output(0)
    np.testing.assert_array_equal(decompress(output), [[0.5, 3.0], [-1.5, -1.5]])


def test_weights_lie_on_disk_and_nothing_stays(tmp_path: Path) -> None:
    values = halves.empty_halves([1024, 1024], tmp_path)
    values[:] = np.arange(1024)
    constant = halves.as_constant(values, "w")
    assert list(tmp_path.iterdir()) == []  # nameless
    np.testing.assert_array_equal(constant.data, values)
    assert constant.get_friendly_name() == "w/f16"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Stock exports of a small model, by tensor type."""
    folder = tmp_path_factory.mktemp("types")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            gguf = write_gguf(
                folder / f"{name}.gguf", tensor_type=Type[name], shape=Shape(layers=1)
            )
            ovfast.export(gguf, folder / name, packed=False, progress=False)
        return folder / name

    return make


@pytest.mark.parametrize("name", ["Q8_0", "Q5_0", "Q4_1", "Q4_0"])
def test_expanded_logits_are_those_of_the_stock_graph(
    name: str, stock: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "_LEAST_BYTES", 0)
    compressed = read_stock(stock(name))
    assert compressed_weights(compressed)
    expanded = read_stock(stock(name), expand=True, scratch=tmp_path)
    assert not compressed_weights(expanded)
    expected = PositionLogits(compressed, exact=True)(IDS)
    # Products of f32 scales are rounded to f16 once.
    np.testing.assert_allclose(
        PositionLogits(expanded, exact=True)(IDS), expected, atol=4e-3 * np.abs(expected).max()
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unpacked_logits_are_those_of_the_packed_model(
    architecture: str, tiny_model_dirs: dict[str, Path]
) -> None:
    graph = read_stock(tiny_model_dirs[architecture])
    kinds = {node.get_type_info().version_id for node in graph.get_ops()}
    assert "ovfast" not in kinds
    expected = PositionLogits(tiny_model_dirs[architecture], exact=True)(IDS)
    got = PositionLogits(graph, exact=True)(IDS)
    # f16 weights are exact; only sums are in another order.
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_names_tell_the_layers_of_one_operation_apart(tiny_model_dirs: dict[str, Path]) -> None:
    model = read_stock(tiny_model_dirs["qwen2"])
    names = [
        taker.get_node().get_friendly_name()
        for weight in weights_of(model)
        for taker in weight.takers
    ]
    assert len(names) == len(set(names)) == 2 + 2 * 7


def test_lm_head_in_two_halves_is_unpacked(tmp_path: Path) -> None:
    """Needs a large vocabulary and 8 bits."""
    gguf = write_gguf(
        tmp_path / "m.gguf", tensor_type=Type.Q8_0, shape=Shape(layers=1, more_tokens=16000)
    )
    ovfast.export(gguf, tmp_path / "packed", progress=False)
    assert b'type="LMHead"' in (tmp_path / "packed" / "openvino_model.xml").read_bytes()
    expected = PositionLogits(tmp_path / "packed", exact=True)(IDS)
    got = PositionLogits(read_stock(tmp_path / "packed"), exact=True)(IDS)
    np.testing.assert_allclose(got, expected, atol=4e-3 * np.abs(expected).max())


def infer(model: Any, ids: list[int]) -> np.ndarray:
    request = ov.Core().compile_model(model, "CPU").create_infer_request()
    values = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "position_ids": np.arange(len(ids))[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    request.infer({port.get_any_name(): values[port.get_any_name()] for port in model.inputs})
    return np.array(request.get_tensor("logits").data)


def test_calibration_form_and_back(tiny_stock_dirs: dict[str, Path]) -> None:
    model = read_stock(tiny_stock_dirs["qwen2"])
    operations = sorted(node.get_type_name() for node in model.get_ops())
    before = infer(model, IDS)
    assert before.shape[:2] == (1, 1)  # the last position only
    open_for_calibration(model)
    every = infer(model, IDS)
    assert every.shape[1] == len(IDS)
    np.testing.assert_allclose(every[:, -1:], before, atol=1e-2 * np.abs(before).max())
    close_after_calibration(model)
    assert sorted(node.get_type_name() for node in model.get_ops()) == operations
    np.testing.assert_array_equal(infer(model, IDS), before)


def test_quantized_models_are_described(
    tiny_model: Callable[[str, str], TinyModel], stock: Callable[[str], Path], tmp_path: Path
) -> None:
    packed = tiny_model("qwen2", "Q8_0")[1]
    assert describe_quantization(ModelDir.check(packed)) == "16 layers int8 group 32 (GGUF)"
    described = describe_quantization(ModelDir.check(stock("Q4_1")))
    assert described is not None
    assert "int4 group 32" in described
    plain = tiny_model("qwen2", "F16")[1]
    assert describe_quantization(ModelDir.check(plain)) is None


def test_letting_go_of_pages_changes_nothing(tmp_path: Path) -> None:
    """Memory would come back as zeros, a private mapping as the file was."""
    size = 1 << 20
    file = tmp_path / "file"
    file.write_bytes(b"\1" * size)
    heap = np.full(size, 3, np.uint8)
    private = np.memmap(file, mode="c")
    private[:] = 2
    read_only = np.memmap(file, mode="r")
    shared = halves.empty_halves([size], tmp_path)
    shared[:] = 4
    for values in (heap, private, read_only, shared):
        halves.let_go(values)
    assert (heap == 3).all()
    assert (private == 2).all()
    assert (read_only == 1).all()
    assert (shared == 4).all()
