"""Sampling from the largest logits alone against sampling from all of them: the same tokens.

With a large vocabulary the engine multiplies half of the lm_head's bits and completes what may be
among the largest logits. A request for logprobs needs all logits, and has the same seed.
"""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from tiny_models import Shape, write_gguf

import ovfast
from ovfast import _core

# Few layers and many words: nearly all of the time goes into the lm_head, as it should here.
SHAPE = Shape(layers=1, more_tokens=17_000)
OPTIONS = {"max_new_tokens": 24, "ignore_eos": True, "seed": 9}
SAMPLINGS = {
    "greedy": {"temperature": 0.0},
    "top-1": {"temperature": 0.7, "top_k": 1},
    "top-40": {"temperature": 1.0, "top_k": 40},
    "top-40 of top-p": {"temperature": 1.3, "top_k": 40, "top_p": 0.8},
    "top-40 with min-p": {"temperature": 1.3, "top_k": 40, "min_p": 0.2},
    "top-5000": {"temperature": 2.0, "top_k": 5000},
    "more than there are": {"temperature": 1.0, "top_k": 20_000},
    "all": {"temperature": 1.0, "top_k": 0},
}
PENALTIES = {
    "none": {},
    "repetition": {"repetition_penalty": 1.5},
    "repetition wanted": {"repetition_penalty": 0.7},
    "frequency and presence": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    "presence wanted": {"presence_penalty": -1.0},
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    write_gguf(folder / "model.gguf", "qwen2", GGMLQuantizationType.Q8_0, shape=SHAPE)
    ovfast.export(folder / "model.gguf", folder / "exported", progress=False)
    layers = _core.inspect_packing(folder / "exported").layers
    assert [layer.operation for layer in layers].count("LMHead") == 1
    return folder / "exported"


@pytest.fixture(scope="module")
def exact(model_dir):
    """An LLM whose logits hardly depend on what runs beside.

    Which sequences share a step depends on time, and kernels for more rows sum in another order:
    rounding activations to 8 bits makes enough of that to turn tokens.
    """
    properties = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    with ovfast.LLM(
        model_dir, kv_cache_gb=0.05, activation_precision="exact", properties=properties
    ) as llm:
        yield llm


@pytest.fixture(scope="module")
def llm(model_dir):
    with ovfast.LLM(model_dir, kv_cache_gb=0.05) as llm:
        assert llm.info.lm_head_rows
        assert llm.info.vocab_size > 17_000
        yield llm


def prompt_of(tokens):
    return np.random.default_rng(tokens).integers(3, 17_000, tokens).tolist()


def tokens_of(generation):
    return [tuple(answer.token_ids) for answer in generation.answers]


def both(llm, prompt, **options):
    """The tokens from the largest logits, and those from all."""
    options = {**OPTIONS, **options}
    largest = tokens_of(llm.generate(prompt, **options))
    return largest, tokens_of(llm.generate(prompt, **options, logprobs=1))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_same_tokens(llm, sampling, penalty):
    largest, everything = both(llm, prompt_of(30), **SAMPLINGS[sampling], **PENALTIES[penalty])
    assert largest == everything


def test_logprobs_change_nothing_but_what_is_computed(llm):
    """The tokens are the largest: what the first half of the bits says is not enough for that."""
    generation = llm.generate(prompt_of(10), **OPTIONS, temperature=0.0, logprobs=2)
    for position in generation.logprobs:
        assert position.chosen.token_id == position.top[0].token_id
        assert position.top[0].logprob > position.top[1].logprob


@pytest.mark.parametrize("sampling", ["greedy", "top-1", "top-40"])
def test_penalised_away(llm, sampling):
    """The prompt has what would be chosen: a strong penalty makes others the largest."""
    options = {**OPTIONS, **SAMPLINGS[sampling], "max_new_tokens": 1}
    prompt = prompt_of(8)
    for _ in range(30):
        prompt += llm.generate(prompt, **options).token_ids
    largest, everything = both(llm, prompt, **SAMPLINGS[sampling], repetition_penalty=3.0)
    assert largest == everything
    assert not set(prompt) & set(largest[0])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_banned_tokens(llm, sampling):
    """What would come first may not end the answer yet: the next ones have to be there."""
    prompt = prompt_of(12)
    options = SAMPLINGS[sampling]
    banned: list[int] = []
    for _ in range(5):
        given = {
            **options,
            "ignore_eos": False,
            "stop_token_ids": banned,
            "min_new_tokens": 3,
            "max_new_tokens": 6,
        }
        largest, everything = both(llm, prompt, **given)
        assert largest == everything
        assert not set(banned) & set(largest[0][:3])
        banned += largest[0][:3]


@pytest.mark.parametrize("count", [2, 5, 16, 17, 20])
@pytest.mark.parametrize("sampling", ["top-1", "top-40", "top-5000", "all"])
def test_several_answers(llm, sampling, count):
    """They take the same steps every time, at first with one row of logits for all."""
    options = {**SAMPLINGS[sampling], **PENALTIES["repetition"]}
    largest, everything = both(llm, prompt_of(40), **options, n=count)
    assert largest == everything
    assert len(set(largest)) == (1 if sampling == "top-1" else count)


@pytest.mark.parametrize("count", [2, 9, 16, 17, 20])
def test_batches(exact, count):
    """Sequences that want different numbers of logits, more than are completed row by row too."""
    kinds = [
        {**SAMPLINGS["greedy"]},
        {**SAMPLINGS["top-40"], **PENALTIES["repetition"]},
        {**SAMPLINGS["top-1"], **PENALTIES["frequency and presence"]},
        {**SAMPLINGS["top-40"], "min_new_tokens": 5, "stop_token_ids": list(range(100))},
    ]
    requests = [(prompt_of(5 + i), {**OPTIONS, **kinds[i % 4], "seed": i}) for i in range(count)]
    answers = []
    for more in ({}, {"logprobs": 1}):
        streams = [exact.stream(prompt, **options, **more) for prompt, options in requests]
        answers.append([stream.result.token_ids for stream in streams])
    assert answers[0] == answers[1]


def test_one_that_wants_all_among_others(exact):
    """Whoever needs all logits gets them; the others notice nothing."""
    greedy = {**OPTIONS, **SAMPLINGS["greedy"]}
    alone = [exact.generate(prompt_of(20 + i), **greedy).token_ids for i in range(3)]
    streams = [exact.stream(prompt_of(20 + i), **greedy) for i in range(3)]
    whole = exact.stream(prompt_of(7), **OPTIONS, temperature=1.0, top_k=0, logprobs=20)
    assert [stream.result.token_ids for stream in streams] == alone
    for position in whole.result.logprobs:
        assert len(position.top) == 20
        assert np.isfinite([top.logprob for top in position.top]).all()
