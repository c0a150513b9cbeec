"""The C++ engine against the plain Python path: the same tokens, whatever else runs meanwhile.

Both compute in f32 with an f32 KV cache. Paged and plain attention sum in another order, though, so
that tokens are only required to agree where the first choice leads by more than that can move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tiny_models import ARCHITECTURES

import ovfast
from ovfast.reference import ReferenceLLM

EXACT = {
    "properties": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    "activation_precision": "exact",
}
# Log-probabilities of the tiny models differed by 4e-6 at most.
TOLERANCE = 1e-4
# A request within one KV block, one that fills it, one that begins the next, and several blocks.
PROMPT_TOKENS = (1, 5, 31, 32, 33, 100, 150)
NEW_TOKENS = 40


@dataclass(frozen=True)
class Expected:
    """What the Python path says: tokens and, for each, the log-probabilities of the vocabulary."""

    token_ids: list[int]
    logprobs: np.ndarray

    @classmethod
    def of(cls, reference, prompt, new_tokens=NEW_TOKENS):
        result = reference.generate(prompt, new_tokens, keep_logits=True)
        logits = result.logits.astype(np.float64)
        top = logits.max(-1, keepdims=True)
        normaliser = top + np.log(np.exp(logits - top).sum(-1, keepdims=True))
        return cls(result.token_ids, logits - normaliser)

    def certain(self):
        """Tokens before the first one that another order of sums could turn."""
        best = np.sort(self.logprobs, axis=-1)[:, -2:]
        close = np.flatnonzero(best[:, 1] - best[:, 0] < 2 * TOLERANCE)
        return int(close[0]) if close.size else len(self.token_ids)


def check(generation, expected):
    assert generation.finish_reason == "length"
    assert len(generation.token_ids) == len(generation.logprobs) == len(expected.token_ids)
    certain = expected.certain()
    assert list(generation.token_ids[:certain]) == expected.token_ids[:certain]
    for got, row in zip(generation.logprobs[:certain], expected.logprobs, strict=False):
        assert [got.chosen.logprob] + [top.logprob for top in got.top] == pytest.approx(
            [row[got.chosen.token_id]] + [row[top.token_id] for top in got.top], abs=TOLERANCE
        )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def answers(request, tiny_stock_dirs):
    """Prompts, and what the Python path makes of them with OpenVINO's own operations."""
    reference = ReferenceLLM(tiny_stock_dirs[request.param])
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, 400, tokens).tolist() for tokens in PROMPT_TOKENS]
    expected = [Expected.of(reference, prompt) for prompt in prompts]
    # Otherwise the comparisons below would end before they began.
    assert sum(answer.certain() for answer in expected) > 0.8 * NEW_TOKENS * len(expected)
    return request.param, prompts, expected


@pytest.fixture(params=["packed", "stock"])
def case(request, answers, tiny_model_dirs, tiny_stock_dirs):
    """Arguments for the engine, prompts and answers. Weights are F16: packing changes no value."""
    architecture, prompts, expected = answers
    if request.param == "packed":
        return {"source": tiny_model_dirs[architecture], **EXACT}, prompts, expected
    stock = {"source": tiny_stock_dirs[architecture], "packed": "never"}
    return {**stock, **EXACT}, prompts, expected


OPTIONS = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True, "temperature": 0.0, "logprobs": 5}


@pytest.mark.parametrize("max_batch_tokens", [None, 7, 32])
def test_alone(case, max_batch_tokens):
    """A small max_batch_tokens cuts prompts into chunks, within blocks and at their borders."""
    model, prompts, expected = case
    with ovfast.LLM(**model, max_batch_tokens=max_batch_tokens) as llm:
        for prompt, answer in zip(prompts, expected, strict=True):
            check(llm.generate(prompt, **OPTIONS), answer)


@pytest.mark.parametrize("max_batch_tokens", [None, 16])
def test_together(case, max_batch_tokens):
    """All at once, twice over: the second time blocks are used again that others have written."""
    model, prompts, expected = case
    with ovfast.LLM(**model, max_batch_tokens=max_batch_tokens) as llm:
        for _ in range(2):
            streams = [llm.stream(prompt, **OPTIONS) for prompt in prompts]
            for stream, answer in zip(streams, expected, strict=True):
                check(stream.result, answer)


def test_joined_midway(case):
    """Requests join one that decodes, and leave before it: long prompts beside single tokens."""
    model, prompts, expected = case
    with ovfast.LLM(**model, max_batch_tokens=16) as llm:
        first = llm.stream(prompts[1], **OPTIONS)
        next(iter(first))
        short = {**OPTIONS, "max_new_tokens": 3}
        others = [llm.stream(prompt, **short) for prompt in prompts[2:]]
        check(first.result, expected[1])
        for stream, answer in zip(others, expected[2:], strict=True):
            check(stream.result, Expected(answer.token_ids[:3], answer.logprobs[:3]))


def test_few_blocks(case):
    """A KV cache that holds some of the requests only: the others wait, or give way and resume."""
    model, prompts, expected = case
    with ovfast.LLM(**model) as llm:
        per_token = llm.info.kv_bytes_per_token
    room = 1.5 * (max(PROMPT_TOKENS) + NEW_TOKENS) * per_token / 2**30
    with ovfast.LLM(**model, kv_cache_gb=room) as llm:
        streams = [llm.stream(prompt, **OPTIONS) for prompt in prompts]
        for stream, answer in zip(streams, expected, strict=True):
            check(stream.result, answer)


@pytest.mark.parametrize("tensor_type", ["Q8_0", "Q4_0"])
def test_compressed_weights(tiny_model, tensor_type):
    _, model_dir = tiny_model("qwen2", tensor_type)
    prompt = np.random.default_rng(6).integers(3, 400, 45).tolist()
    expected = Expected.of(ReferenceLLM(model_dir), prompt)
    with ovfast.LLM(model_dir, **EXACT) as llm:
        check(llm.generate(prompt, **OPTIONS), expected)


@pytest.mark.real_model
def test_real_model(real_model_dir):
    """Code, in English and in Chinese, alone and together, with prompts in several chunks."""
    texts = [
        "def quicksort(items):\n",
        "# 用 Python 写一个函数，返回第 n 个斐波那契数。\n",
        "import math\n\n" + "\n".join(f"x{i} = math.sqrt({i}) * {i + 1}" for i in range(12)),
    ]
    options = {**OPTIONS, "repetition_penalty": 1.0, "max_new_tokens": 24}
    with ovfast.LLM(real_model_dir, **EXACT, max_batch_tokens=64) as llm:
        prompts = [llm.tokenizer.encode(text) for text in texts]
        reference = ReferenceLLM(real_model_dir)
        expected = [Expected.of(reference, prompt, 24) for prompt in prompts]
        # Logits of real models are ten times as large; what matters is their first choice.
        together = [llm.stream(prompt, **options) for prompt in prompts]
        for stream, prompt, answer in zip(together, prompts, expected, strict=True):
            certain = answer.certain()
            assert certain > 0
            assert list(stream.result.token_ids[:certain]) == answer.token_ids[:certain]
            alone = llm.generate(prompt, **options)
            assert list(alone.token_ids[:certain]) == answer.token_ids[:certain]
