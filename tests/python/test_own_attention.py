"""Our own attention in the engine against OpenVINO's, and both against the plain Python path.

Whatever was generated, and however, each of its distributions is computed anew: one request for each
beginning of the answer, with OpenVINO's attention, f32 keys and values.
"""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from tiny_models import ARCHITECTURES, CONTEXT, Shape, write_gguf

import ovfast
from ovfast.reference import ReferenceLLM

# Queries, keys, values and their weights are rounded to bf16, by 2^-9 each at most: together about
# 2^-8 of what a layer adds. Logits, of a few layers, are sums of terms around 1 whose errors are
# independent: 0.01 on the average would be surprising, ten times that impossible.
AVERAGE, WORST = 0.01, 0.1
# A request within one KV block, one that fills it, one that begins the next, and several blocks.
PROMPT_TOKENS = (1, 5, 31, 32, 33, 100, 150)
GREEDY = {"max_new_tokens": 20, "ignore_eos": True, "temperature": 0.0, "logprobs": 5}
SAMPLED = {**GREEDY, "temperature": 1.0, "seed": 4}
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
OWN = {"attention": "ovfast", "properties": F32}
# No property of a KV cache may be set for our own.
OPENVINO = {"attention": "openvino", "properties": {**F32, "KV_CACHE_PRECISION": "f32"}}


@pytest.fixture(autouse=True, scope="module")
def supported(tiny_model_dirs):
    with ovfast.LLM(tiny_model_dirs["llama"]) as llm:
        reason = llm.info.attention_reason
    if reason:
        assert "AVX-512" in reason
        pytest.skip(reason)


def prompt_of(tokens, seed=5):
    return np.random.default_rng(seed).integers(3, 400, tokens).tolist()


PROMPTS = [prompt_of(tokens, tokens) for tokens in PROMPT_TOKENS]


def check(answer, expected):
    """Compare an answer with the logprobs expected at each position: token id -> logprob."""
    assert len(answer.token_ids) == len(answer.logprobs) == len(expected)
    differences = []
    for got, want in zip(answer.logprobs, expected, strict=True):
        differences += [abs(top.logprob - want[top.token_id]) for top in got.top]
        differences.append(abs(got.chosen.logprob - want.get(got.chosen.token_id, np.nan)))
    # A token drawn at random need not be among the 20 that OpenVINO names.
    assert np.nanmean(differences) < AVERAGE
    assert np.nanmax(differences) < WORST


class Oracle:
    """A model with OpenVINO's attention."""

    def __init__(self, model_dir):
        self.llm = ovfast.LLM(model_dir, **OPENVINO)
        assert self.llm.info.attention == "openvino"

    def check(self, prompt, answer):
        options = {**GREEDY, "max_new_tokens": 1, "logprobs": 20}
        streams = [
            self.llm.stream(prompt + list(answer.token_ids[:known]), **options)
            for known in range(len(answer.token_ids))
        ]
        tops = [stream.result.logprobs[0].top for stream in streams]
        check(answer, [{entry.token_id: entry.logprob for entry in top} for top in tops])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tiny_model_dirs):
    """A directory, and what says what it should answer."""
    oracle = Oracle(tiny_model_dirs[request.param])
    yield tiny_model_dirs[request.param], oracle
    oracle.llm.close()


@pytest.mark.parametrize("max_batch_tokens", [None, 7, 32])
def test_alone(model, max_batch_tokens):
    """A small max_batch_tokens cuts prompts into chunks, within blocks and at their borders."""
    model_dir, oracle = model
    with ovfast.LLM(model_dir, **OWN, max_batch_tokens=max_batch_tokens) as llm:
        assert (llm.info.attention, llm.info.attention_reason) == ("ovfast", "")
        assert llm.info.fused_layers == Shape().layers - 1  # all but GGUF's last
        assert llm.info.kv_block_tokens == 32
        for prompt in PROMPTS:
            oracle.check(prompt, llm.generate(prompt, **GREEDY))


@pytest.mark.parametrize("max_batch_tokens", [None, 16])
def test_together(model, max_batch_tokens):
    """All at once, twice over: then blocks are used again, and those that begin alike are found."""
    model_dir, oracle = model
    with ovfast.LLM(model_dir, **OWN, max_batch_tokens=max_batch_tokens) as llm:
        for round_ in range(2):
            streams = [llm.stream(prompt, **GREEDY) for prompt in PROMPTS]
            for prompt, stream in zip(PROMPTS, streams, strict=True):
                oracle.check(prompt, stream.result)
                assert (stream.result.metrics.cached_tokens > 0) == (
                    round_ == 1 and len(prompt) > 32
                )


def test_prompts_that_begin_alike(model):
    """Blocks that one request filled serve others, which go on from there in their own ways."""
    model_dir, oracle = model
    with ovfast.LLM(model_dir, **OWN) as llm:
        common = prompt_of(100)
        oracle.check(common, llm.generate(common, **GREEDY))
        endings = [prompt_of(tokens, tokens) for tokens in (1, 30, 60)]
        streams = [llm.stream(common + ending, **GREEDY) for ending in endings]
        for ending, stream in zip(endings, streams, strict=True):
            oracle.check(common + ending, stream.result)
            assert stream.result.metrics.cached_tokens == 96


def test_answers_share_the_prompt(model):
    """The block that the prompt ends in is copied for each answer that goes on in it."""
    model_dir, oracle = model
    with ovfast.LLM(model_dir, **OWN) as llm:
        for prompt in (PROMPTS[1], PROMPTS[3], PROMPTS[6]):
            answers = llm.generate(prompt, n=4, **SAMPLED).answers
            assert len({tuple(answer.token_ids) for answer in answers}) == 4
            for answer in answers:
                oracle.check(prompt, answer)


def test_preemption(model):
    """Blocks that one request gave up are filled by another, and filled again."""
    model_dir, oracle = model
    with ovfast.LLM(model_dir, **OWN) as llm:
        block = llm.info.kv_block_tokens * llm.info.kv_bytes_per_token
    with ovfast.LLM(model_dir, **OWN, kv_cache_gb=8.01 * block / 2**30) as llm:
        assert llm.info.kv_blocks == 8
        options = {**GREEDY, "max_new_tokens": 80}
        prompts = [prompt_of(tokens, tokens) for tokens in (20, 40, 60, 90)]
        streams = [llm.stream(prompt, **options) for prompt in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            oracle.check(prompt, stream.result)
        assert sum(stream.result.metrics.preemptions for stream in streams) > 0


def written(folder, architecture, **shape):
    write_gguf(folder / "model.gguf", architecture, GGMLQuantizationType.F16, shape=Shape(**shape))
    ovfast.export(folder / "model.gguf", folder / "exported", progress=False)
    return folder / "exported"


def test_long_context(tmp_path):
    """More tokens than one thread takes at a time."""
    model_dir = written(tmp_path, "llama", context=2048)
    prompt = prompt_of(1500)
    oracle = Oracle(model_dir)
    with ovfast.LLM(model_dir, **OWN) as llm:
        together = [llm.stream(p, **GREEDY) for p in (prompt, prompt[700:])]
        oracle.check(prompt, together[0].result)
        oracle.check(prompt[700:], together[1].result)
        oracle.check(prompt[:1200], llm.generate(prompt[:1200], **GREEDY))


# ---- Sliding windows -----------------------------------------------------------------------------


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("architecture", ["gemma3", "phi3"])
@pytest.mark.parametrize("window", [5, 40])
def test_sliding_window(tmp_path, architecture, window):
    """Windows smaller than the context, within a block and beyond it; not all layers have one."""
    shape = {"layers": 7, "head_size": 32}
    for name, tokens in (("with", window), ("without", CONTEXT)):
        (tmp_path / name).mkdir()
        written(tmp_path / name, architecture, **shape, window=tokens)
    model_dir = tmp_path / "with" / "exported"
    reference = ReferenceLLM(model_dir)
    prompt = prompt_of(100)
    for attention in (OWN, OPENVINO):
        for max_batch_tokens in (None, 24):
            with ovfast.LLM(model_dir, **attention, max_batch_tokens=max_batch_tokens) as llm:
                assert llm.info.attention == attention["attention"]
                assert llm.info.fused_layers == (6 if attention is OWN else 0)
                answer = llm.generate(prompt, **GREEDY)
            ids = prompt + list(answer.token_ids[:-1])
            expected = log_probabilities(reference.logits(ids))[len(prompt) - 1 :]
            check(answer, [dict(enumerate(row)) for row in expected])
    # The same weights without a window say something else, or all this would mean nothing.
    other = ReferenceLLM(tmp_path / "without" / "exported").logits(ids)[len(prompt) - 1 :]
    assert np.abs(log_probabilities(other) - expected).mean() > 5 * AVERAGE


def test_long_context_with_a_window(tmp_path):
    """Pieces of the context that are out of sight."""
    model_dir = written(tmp_path, "gemma3", layers=3, context=2048, window=100)
    prompt = prompt_of(1300)
    oracle = Oracle(model_dir)
    with ovfast.LLM(model_dir, **OWN) as llm:
        oracle.check(prompt, llm.generate(prompt, **GREEDY))


# ---- Where it is not taken -----------------------------------------------------------------------


@pytest.mark.parametrize("head_size", [16, 48])
def test_other_head_sizes(tmp_path, head_size):
    model_dir = written(tmp_path, "llama", head_size=head_size, heads=4, kv_heads=2)
    with ovfast.LLM(model_dir) as llm:
        assert llm.info.attention == "openvino"
        assert f"{head_size} channels" in llm.info.attention_reason.replace(" and", "")
        assert "multiples of 32" in llm.info.attention_reason
        assert len(llm.generate(PROMPTS[5], **GREEDY).token_ids) == 20
    with pytest.raises(ValueError, match=r"attention is 'ovfast', but .* multiples of 32"):
        ovfast.LLM(model_dir, attention="ovfast")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"properties": {"KV_CACHE_PRECISION": "u8"}}, "KV_CACHE_PRECISION is set"),
        ({"properties": {"KEY_CACHE_GROUP_SIZE": "32"}}, "KEY_CACHE_GROUP_SIZE is set"),
        ({"activation_precision": "exact"}, "activation_precision is 'exact'"),
    ],
)
def test_options_that_only_openvino_has(tiny_model_dirs, options, reason):
    with ovfast.LLM(tiny_model_dirs["qwen2"], **options) as llm:
        assert (llm.info.attention, llm.info.attention_reason) == ("openvino", reason)
    with pytest.raises(ValueError, match=f"attention is 'ovfast', but {reason}"):
        ovfast.LLM(tiny_model_dirs["qwen2"], attention="ovfast", **options)


def test_on_request(tiny_model_dirs):
    with ovfast.LLM(tiny_model_dirs["qwen2"], attention="openvino") as llm:
        assert llm.info.attention == "openvino"
        assert llm.info.attention_reason == "attention is 'openvino'"


@pytest.mark.parametrize("attention", ["", "Ovfast", "sdpa"])
def test_unknown(tiny_model_dirs, attention):
    with pytest.raises(ValueError, match="attention"):
        ovfast.LLM(tiny_model_dirs["qwen2"], attention=attention)
