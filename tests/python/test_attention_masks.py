"""Masks that OpenVINO's rewrite to paged attention does not know: honoured, or refused."""

from __future__ import annotations

import shutil

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

import ovfast
from ovfast.reference import ReferenceLLM

EXACT = {
    "properties": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    "activation_precision": "exact",
}
PROMPT = np.random.default_rng(5).integers(3, 400, 60).tolist()


def with_masks(stock_dir, target, change):
    """Copy a model; `change` gives the mask of scores [tokens, all tokens] from what is seen.

    It gets the positions of the tokens [tokens, 1] and of all tokens [1, all tokens], i64.
    """
    shutil.copytree(stock_dir, target)
    model = ov.Core().read_model(stock_dir / "openvino_model.xml")
    positions = model.input("position_ids").get_node()
    padding = model.input("attention_mask").get_node()
    own = ops.reshape(positions, ops.constant([-1, 1]), special_zero=False)
    count = ops.gather(ops.shape_of(padding), ops.constant(1), ops.constant(0))
    every = ops.unsqueeze(ops.range(ops.constant(0), count, ops.constant(1), "i64"), [0])
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            mask = ops.unsqueeze(change(own, every), ops.constant([0, 1]))
            mask = ops.convert(mask, node.input(3).get_element_type().to_string())
            node.input(3).replace_source_output(mask.output(0))
    ov.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)
    return target


def scores(seen):
    return ops.select(seen, np.float32(0), np.float32(-65504))


def causal(own, every):
    return ops.less_equal(every, own)


def window(own, every):
    oldest = ops.add(own, ops.constant(-7))
    return scores(ops.logical_and(causal(own, every), ops.greater(every, oldest)))


def test_a_window_in_another_spelling(tiny_stock_dirs, tmp_path):
    model_dir = with_masks(tiny_stock_dirs["llama"], tmp_path / "model", window)
    options = {"max_new_tokens": 8, "ignore_eos": True, "logprobs": 5}
    with ovfast.LLM(model_dir, packed="never", **EXACT) as llm:
        answer = llm.generate(PROMPT, **options)
    with ovfast.LLM(tiny_stock_dirs["llama"], packed="never", **EXACT) as llm:
        other = llm.generate(PROMPT, max_new_tokens=1, logprobs=5)
    logits = ReferenceLLM(model_dir).logits(PROMPT + answer.token_ids[:-1])[len(PROMPT) - 1 :]
    logits = logits.astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for position, row in zip(answer.logprobs, expected, strict=True):
        # As in test_engine_oracle.py: paged and plain attention sum in another order.
        assert [top.logprob for top in position.top] == pytest.approx(
            [row[top.token_id] for top in position.top], abs=1e-4
        )
    # Without the window the model says something else, or all this would mean nothing.
    assert abs(other.logprobs[0].chosen.logprob - expected[0].max()) > 1e-2


def alibi(own, every):
    distance = ops.convert(ops.subtract(every, own), "f32")
    return ops.add(scores(causal(own, every)), ops.multiply(distance, np.float32(0.25)))


def prefix(own, every):
    return scores(ops.logical_or(causal(own, every), ops.less(every, ops.constant(5))))


def chunks(own, every):
    size = ops.constant(16)
    same = ops.equal(ops.divide(own, size), ops.divide(every, size))
    return scores(ops.logical_and(causal(own, every), same))


@pytest.mark.parametrize("packed", ["auto", "never"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (alibi, "its mask adds -16.* to a score"),
        (prefix, "neither causal nor a sliding window"),
        (chunks, "neither causal nor a sliding window"),
    ],
)
def test_other_masks_are_refused(tiny_stock_dirs, tmp_path, change, problem, packed):
    model_dir = with_masks(tiny_stock_dirs["llama"], tmp_path / "model", change)
    with pytest.raises(ovfast.ModelError, match=f"cannot be paged: attention 1 of 2: .*{problem}"):
        ovfast.LLM(model_dir, packed=packed)
