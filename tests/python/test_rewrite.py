"""Packed models answer as the stock ones that they were made of, on OpenVINO's own CPU plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from gguf import GGMLQuantizationType
from openvino._offline_transformations import paged_attention_transformation
from tiny_models import ARCHITECTURES, write_gguf

import ovfast.ops
from ovfast import _core

# Nothing but the rewrite may differ.
_EXACT_CPU = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "KV_CACHE_PRECISION": "f32",
}


@pytest.fixture(scope="module")
def core() -> ov.Core:
    core = ov.Core()
    ovfast.ops.register(core)
    return core


def stock_model(architecture: str, tensor_type: str, folder: Path) -> Path:
    """Write a tiny model as OpenVINO's frontend makes it; the tests need no tokenizer."""
    stock = folder / "stock"
    stock.mkdir()
    gguf = write_gguf(folder / "model.gguf", architecture, GGMLQuantizationType[tensor_type])
    _core.import_gguf(gguf, stock, packed=False)
    return stock


def packed_model(core: ov.Core, packed: Path, activations: str) -> Any:
    text = (packed / "openvino_model.xml").read_text()
    assert 'activations="int8"' in text
    changed = packed / f"{activations}.xml"
    changed.write_text(text.replace('activations="int8"', f'activations="{activations}"'))
    return core.read_model(changed, packed / "openvino_model.bin")


def logits(core: ov.Core, model: Any) -> np.ndarray:
    """Of the last positions of a prompt and of two steps after it."""
    request = core.compile_model(model, "CPU", _EXACT_CPU).create_infer_request()
    generator = np.random.default_rng(1)
    rows, past = [], 0
    for new in (7, 1, 1):
        request.infer(
            {
                "input_ids": generator.integers(3, 400, (1, new)),
                "attention_mask": np.ones((1, past + new), np.int64),
                "position_ids": np.arange(past, past + new)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
        )
        past += new
        rows.append(request.get_output_tensor(0).data[0].copy())
    return np.concatenate(rows)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("tensor_type", ["Q4_0", "Q8_0", "F16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_models_answer_as_stock_ones(
    architecture: str,
    tensor_type: str,
    core: ov.Core,
    tmp_path: Path,
) -> None:
    stock = stock_model(architecture, tensor_type, tmp_path)
    expected = logits(core, core.read_model(stock / "openvino_model.xml"))

    report = _core.pack_model(stock, tmp_path)
    # Two blocks between the table and the lm_head.
    assert sorted(layer.operation for layer in report.layers) == [
        "Embedding",
        *["FullyConnected"] * 3,
        *["GatedMLP"] * 2,
        *["QKV"] * 2,
    ]

    # The weights are the same numbers, so layers differ by the order of f32 additions.
    exact = logits(core, packed_model(core, tmp_path, "exact"))
    assert error(exact, expected) < 2e-5

    # int8 by groups of 32 rounds an activation by up to 1/254 of its group's largest, at random;
    # ten such layers follow each other, and random logits have no margin.
    assert 0 < error(logits(core, packed_model(core, tmp_path, "int8")), expected) < 0.05


def test_a_rewritten_model_still_becomes_paged(core: ov.Core, tmp_path: Path) -> None:
    _core.pack_model(stock_model("llama", "Q4_0", tmp_path), tmp_path)
    model = core.read_model(tmp_path / "openvino_model.xml")
    paged_attention_transformation(model)
    names = [node.get_type_name() for node in model.get_ops()]
    assert names.count("PagedAttentionExtension") == 2
    assert names.count("QKV") == 2
