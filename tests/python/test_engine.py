"""The engine through the Python API: scheduling, cancellation, limits and odd requests."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ovfast
from ovfast import _core
from ovfast.reference import ReferenceLLM

EXACT = {
    "properties": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    "activation_precision": "exact",
}
PROMPTS = [[5, 9, 13], [40, 41, 42, 43, 44, 45, 46], list(range(60, 100)), [7], [99, 3] * 12]


@pytest.fixture(scope="module")
def model_dir(tiny_model_dirs):
    return tiny_model_dirs["llama"]


@pytest.fixture(scope="module")
def llm(model_dir):
    with ovfast.LLM(model_dir, **EXACT, kv_cache_gb=0.05) as llm:
        yield llm


def alone(llm, prompt, **options):
    return llm.generate(prompt, **options).token_ids


def test_metrics_agree_with_the_answer(llm):
    out = llm.generate(PROMPTS[1], max_new_tokens=12, ignore_eos=True)
    times = out.metrics
    assert len(out.token_ids) == times.generated_tokens == 12
    assert out.finish_reason == "length"
    assert times.prompt_tokens == 7
    assert times.inter_token_seconds.shape == (11,)
    assert times.inter_token_seconds.dtype == np.float32
    assert 0 <= times.queue_seconds <= times.ttft_seconds <= times.total_seconds
    assert times.steps == 12
    assert 0 < times.infer_seconds < times.total_seconds
    decode = times.inter_token_seconds.sum()
    assert math.isclose(times.ttft_seconds + decode, times.total_seconds, rel_tol=0.05)


def test_text_prompts_one_and_many(llm):
    texts = ["Hello there", "def f(x):", "三个字"]
    many = llm.generate(texts, max_new_tokens=6, ignore_eos=True)
    assert [m.token_ids for m in many] == [
        alone(llm, text, max_new_tokens=6, ignore_eos=True) for text in texts
    ]
    assert many[0].text == llm.tokenizer.decode(many[0].token_ids)


@pytest.mark.parametrize("max_batch_tokens", [1, 3, 16])
def test_chunked_prefill_changes_nothing(model_dir, llm, max_batch_tokens):
    with ovfast.LLM(
        model_dir, **EXACT, kv_cache_gb=0.05, max_batch_tokens=max_batch_tokens
    ) as chunked:
        for prompt in PROMPTS:
            assert alone(chunked, prompt, max_new_tokens=8, ignore_eos=True) == alone(
                llm, prompt, max_new_tokens=8, ignore_eos=True
            )


def test_requests_that_do_not_fit_together_take_turns(model_dir, llm):
    """A cache of a few blocks forces preemption; nothing of the answers may change."""
    block_bytes = llm.info.kv_bytes_per_token * llm.info.kv_block_tokens
    tight = 4 * block_bytes / 2**30 * 1.01
    with ovfast.LLM(model_dir, **EXACT, kv_cache_gb=tight) as small:
        assert small.info.kv_blocks == 4
        assert small.info.kv_cache_bytes <= tight * 2**30
        options = {"max_new_tokens": 60, "ignore_eos": True}
        streams = [small.stream(prompt, **options) for prompt in PROMPTS]
        answers = [stream.result for stream in streams]
        assert [a.token_ids for a in answers] == [alone(llm, p, **options) for p in PROMPTS]
        assert sum(a.metrics.preemptions for a in answers) > 0
        assert answers[0].metrics.preemptions == 0  # the oldest never gives way


def test_same_seed_same_text_batched_or_not(llm):
    options = {"max_new_tokens": 20, "temperature": 0.9, "top_p": 0.95, "seed": 11}
    expected = [alone(llm, prompt, **options) for prompt in PROMPTS]
    streams = [llm.stream(prompt, **options) for prompt in PROMPTS]
    assert [s.result.token_ids for s in streams] == expected
    other = [alone(llm, prompt, **{**options, "seed": 12}) for prompt in PROMPTS]
    assert other != expected


def test_n_answers_share_the_prompt(llm):
    options = {"max_new_tokens": 16, "temperature": 1.0, "seed": 3, "ignore_eos": True}
    for prompt in PROMPTS:
        out = llm.generate(prompt, n=4, **options)
        assert len(out.answers) == 4
        assert len({tuple(a.token_ids) for a in out.answers}) > 1
        assert out.answers[0].token_ids == alone(llm, prompt, **options)
        assert out.metrics.generated_tokens == 64
        assert out.metrics.inter_token_seconds.shape == (60,)
        again = llm.generate(prompt, n=4, **options)
        assert [a.token_ids for a in again.answers] == [a.token_ids for a in out.answers]


def test_prompt_that_begins_alike_is_not_computed_again(model_dir, llm):
    block = llm.info.kv_block_tokens
    prompt = [5 + i % 60 for i in range(3 * block + 5)]
    options = {"max_new_tokens": 12, "ignore_eos": True}
    with ovfast.LLM(model_dir, **EXACT, kv_cache_gb=0.05) as fresh:
        first = fresh.generate(prompt, **options)
        again = fresh.generate(prompt, **options)
        turn = fresh.generate(prompt + first.token_ids + [9, 9], **options)
        other = fresh.generate([4, *prompt], **options)
    assert first.metrics.cached_tokens == other.metrics.cached_tokens == 0
    assert again.metrics.cached_tokens == 3 * block
    assert turn.metrics.cached_tokens == (len(prompt) + 12 - 1) // block * block
    assert again.token_ids == first.token_ids
    with ovfast.LLM(model_dir, **EXACT, kv_cache_gb=0.05, prefix_caching=False) as uncached:
        expected = uncached.generate(prompt + first.token_ids + [9, 9], **options)
        assert expected.metrics.cached_tokens == 0
        assert turn.token_ids == expected.token_ids
        assert other.token_ids == uncached.generate([4, *prompt], **options).token_ids


def test_logprobs_are_those_of_the_model(llm, model_dir):
    out = llm.generate(PROMPTS[2], max_new_tokens=5, logprobs=20, ignore_eos=True)
    reference = ReferenceLLM(model_dir, exact=True)
    logits = reference.logits(PROMPTS[2] + out.token_ids[:-1])[-5:].astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert len(out.logprobs) == 5
    for position, row in zip(out.logprobs, log_probabilities, strict=True):
        assert position.chosen.token_id == position.top[0].token_id == int(row.argmax())
        order = np.argsort(-row)[:20]
        assert {t.token_id for t in position.top[:3]} == set(order[:3].tolist())
        for entry in position.top:
            assert entry.logprob == pytest.approx(row[entry.token_id], abs=2e-4)


def test_no_logprobs_unless_asked(llm):
    assert llm.generate([5], max_new_tokens=2).logprobs is None


def test_stop_token_ends_and_is_not_in_the_text(llm):
    free = llm.generate(PROMPTS[0], max_new_tokens=12, ignore_eos=True)
    stop = free.token_ids[4]
    cut = free.token_ids.index(stop)
    out = llm.generate(PROMPTS[0], max_new_tokens=12, ignore_eos=True, stop_token_ids=[stop])
    assert out.finish_reason == "stop"
    assert out.token_ids == free.token_ids[: cut + 1]
    assert out.text == llm.tokenizer.decode(free.token_ids[:cut])


def test_min_new_tokens_keeps_the_answer_going(llm):
    free = llm.generate(PROMPTS[0], max_new_tokens=12, ignore_eos=True)
    out = llm.generate(
        PROMPTS[0],
        max_new_tokens=12,
        ignore_eos=True,
        stop_token_ids=[free.token_ids[0]],
        min_new_tokens=6,
    )
    assert len(out.token_ids) >= 6
    assert free.token_ids[0] not in out.token_ids[:6]


def test_stop_string_is_never_printed(llm):
    options = {"max_new_tokens": 40, "ignore_eos": True}
    text = llm.generate(PROMPTS[2], **options).text
    middle = len(text) // 2
    stop = text[middle : middle + 5]
    expected = text[: text.index(stop)]
    stream = llm.stream(PROMPTS[2], stop_strings=[stop], **options)
    assert "".join(stream) == expected
    assert stream.result.finish_reason == "stop"
    assert stream.result.stop_string == stop
    included = llm.generate(PROMPTS[2], stop_strings=stop, include_stop_string=True, **options)
    assert included.text == expected + stop


def test_stream_is_the_text_in_pieces(llm):
    options = {"max_new_tokens": 30, "ignore_eos": True}
    for prompt in PROMPTS:
        stream = llm.stream(prompt, **options)
        pieces = list(stream)
        assert "".join(pieces) == llm.generate(prompt, **options).text == stream.result.text


async def test_astream(llm):
    options = {"max_new_tokens": 10, "ignore_eos": True}

    async def collect(prompt):
        return "".join([piece async for piece in llm.astream(prompt, **options)])

    texts = await asyncio.gather(*(collect(prompt) for prompt in PROMPTS))
    assert texts == [llm.generate(prompt, **options).text for prompt in PROMPTS]


async def test_cancelled_task_cancels_the_request(llm):
    stream = llm.stream([5], max_new_tokens=100_000, ignore_eos=True)

    async def read():
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.result.finish_reason == "cancelled"


def test_cancel_in_decode_keeps_what_came(llm):
    stream = llm.stream(PROMPTS[0], max_new_tokens=100_000, ignore_eos=True)
    first = next(iter(stream))
    stream.cancel()
    out = stream.result
    assert out.finish_reason == "cancelled"
    assert out.text.startswith(first)
    assert 0 < len(out.token_ids) < 100_000


def test_cancel_in_prefill_and_before_the_start(model_dir):
    with ovfast.LLM(
        model_dir, **EXACT, kv_cache_gb=0.05, max_batch_tokens=1, max_sequences=1
    ) as slow:
        prompt = [5] * (slow.info.max_context - 8)
        prefilling = slow.stream(prompt, max_new_tokens=4)
        queued = slow.stream([6], max_new_tokens=4)
        time.sleep(0.02)
        queued.cancel()
        assert queued.result.finish_reason == "cancelled"
        assert queued.result.token_ids == []
        assert queued.result.metrics.steps == 0
        prefilling.cancel()
        assert prefilling.result.finish_reason == "cancelled"
        assert prefilling.result.token_ids == []
        assert 0 < prefilling.result.metrics.steps < len(prompt)
        assert slow.generate([6], max_new_tokens=3, ignore_eos=True).token_ids


def test_dropping_a_stream_frees_its_place(model_dir):
    with ovfast.LLM(model_dir, kv_cache_gb=0.05, max_sequences=1) as single:
        stream = single.stream([5], ignore_eos=True)
        next(iter(stream))
        del stream
        gc.collect()
        assert len(single.generate([6], max_new_tokens=3, ignore_eos=True).token_ids) == 3


def test_eight_threads_at_once(llm):
    options = {"max_new_tokens": 16, "ignore_eos": True}
    expected = [alone(llm, prompt, **options) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        jobs = [(i % 5, pool.submit(alone, llm, PROMPTS[i % 5], **options)) for i in range(40)]
        for i, job in jobs:
            assert job.result() == expected[i]


def test_ten_thousand_requests_at_once(llm):
    streams = [llm.stream([5 + i % 50], max_new_tokens=1, ignore_eos=True) for i in range(10_000)]
    answers = [stream.result.token_ids for stream in streams]
    assert all(len(a) == 1 for a in answers)
    assert answers[:50] == answers[9950:]


def test_interrupt_stops_at_once_and_the_engine_goes_on(llm):
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            while True:
                llm.generate([5], ignore_eos=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(llm.generate([6], max_new_tokens=3, ignore_eos=True).token_ids) == 3


def test_generation_leaves_the_gil_to_others(llm):
    ticks = 0
    running = True

    def count():
        nonlocal ticks
        while running:
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    start = time.perf_counter()
    llm.generate(PROMPTS[2], max_new_tokens=150, ignore_eos=True)
    passed = time.perf_counter() - start
    running = False
    thread.join()
    assert ticks > passed / 0.001 / 20


@pytest.mark.parametrize("prompt", ["", []])
def test_empty_prompt(llm, prompt):
    with pytest.raises(ValueError, match="the prompt is empty"):
        llm.generate(prompt)


def test_token_outside_the_vocabulary(llm):
    for bad in (-1, llm.tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"prompt token 1 is {bad}"):
            llm.generate([5, bad])


def test_prompt_longer_than_the_context(llm):
    limit = llm.info.max_context
    with pytest.raises(ovfast.CapacityError, match=f"{limit} tokens, but the model's context"):
        llm.generate([5] * limit)
    out = llm.generate([5] * (limit - 2), ignore_eos=True)
    assert (len(out.token_ids), out.finish_reason) == (2, "length")


def test_prompt_longer_than_the_kv_memory(model_dir, llm):
    block_bytes = llm.info.kv_bytes_per_token * llm.info.kv_block_tokens
    with ovfast.LLM(model_dir, **EXACT, kv_cache_gb=2 * block_bytes / 2**30 * 1.01) as small:
        assert small.info.max_context == 2 * small.info.kv_block_tokens
        with pytest.raises(ovfast.CapacityError, match="KV cache holds .* raise kv_cache_gb"):
            small.generate([5] * (small.info.max_context + 1))


def test_kv_memory_for_not_even_a_block(model_dir):
    with pytest.raises(ovfast.CapacityError, match="no room for one block"):
        ovfast.LLM(model_dir, kv_cache_gb=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_tokens": 5}, TypeError, "max_tokens"),
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"temperature": math.nan}, ValueError, "temperature"),
        ({"top_p": 0.5, "temperature": 0}, ValueError, "top_p"),
        ({"max_new_tokens": 3, "max_length": 9}, ValueError, "max_length"),
        ({"max_length": 2}, ValueError, "the prompt alone has 3"),
        ({"n": 2}, ValueError, "greedy|temperature"),
        ({"n": 129, "temperature": 1.0}, ValueError, "128"),
        ({"logprobs": 21}, ValueError, "20"),
        ({"stop_strings": [""]}, ValueError, "empty"),
    ],
)
def test_bad_options(llm, options, error, words):
    with pytest.raises(error, match=words):
        llm.generate([5, 6, 7], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_cache_gb": -1}, "kv_cache_gb"),
        ({"kv_cache_gb": math.nan}, "kv_cache_gb"),
        ({"num_threads": 0}, "num_threads"),
        ({"max_context": 10**9}, "made for"),
        ({"device": "TPU"}, "device is 'TPU'"),
        ({"properties": {"NO_SUCH": 1}}, "NO_SUCH"),
        ({"properties": {"INFERENCE_NUM_THREADS": 1}, "num_threads": 1}, "give one of them"),
    ],
)
def test_bad_engine_options(model_dir, options, words):
    with pytest.raises(ValueError, match=words):
        ovfast.LLM(model_dir, **options)


def test_more_answers_than_sequences(model_dir):
    with (
        ovfast.LLM(model_dir, kv_cache_gb=0.05, max_sequences=2) as small,
        pytest.raises(ovfast.CapacityError, match="max_sequences"),
    ):
        small.generate([5], n=3, temperature=1.0)


def test_stream_carries_one_answer(llm):
    with pytest.raises(ValueError, match="one answer"):
        llm.stream([5], n=2, temperature=1.0)


def test_closed(model_dir):
    llm = ovfast.LLM(model_dir, kv_cache_gb=0.05)
    stream = llm.stream([5], ignore_eos=True)
    llm.close()
    assert stream.result.finish_reason == "cancelled"
    with pytest.raises(ovfast.Error, match="closed"):
        llm.generate([5])


def test_cache_bound_is_said(llm):
    assert "kv_cache_gb" in llm.info.kv_cache_reason
    assert llm.info.kv_cache_bytes <= 0.05 * 2**30


def test_requests_cancelled_while_the_engine_looks_for_cancelled_ones(llm):
    """Every one of them must end: none may fall between being found and being removed."""
    for _ in range(3):
        streams = [llm.stream([5], max_new_tokens=100, ignore_eos=True) for _ in range(3000)]
        for stream in random.Random(1).sample(streams, len(streams)):
            stream.cancel()
        for stream in streams:
            assert stream._request.wait(timeout=60), "a cancelled request never ended"
            assert stream.result.finish_reason in ("cancelled", "length")


def test_a_step_counts_once_for_n_answers(llm):
    out = llm.generate([5, 6], n=8, temperature=1.0, seed=1, max_new_tokens=20, ignore_eos=True)
    assert out.metrics.steps == 20
    assert out.metrics.infer_seconds < out.metrics.total_seconds


def test_close_ends_everything_though_info_is_held(model_dir):
    llm = ovfast.LLM(model_dir, kv_cache_gb=0.05)
    info = llm.info
    stream = llm.stream([5], ignore_eos=True)
    llm.close()
    assert stream.result.finish_reason == "cancelled"
    assert info.kv_blocks > 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_threads": 10_000}, ValueError, "may use"),
        ({"kv_cache_gb": 1e30}, ValueError, "kv_cache_gb"),
        ({"kv_cache_gb": 100_000}, ovfast.CapacityError, "memory"),
        ({"properties": {"KV_CACHE_PRECISION": "zz"}}, ValueError, "KV_CACHE_PRECISION"),
    ],
)
def test_options_that_the_machine_cannot_honour(model_dir, options, error, words):
    with pytest.raises(error, match=words):
        ovfast.LLM(model_dir, **options)


def test_stop_token_outside_the_vocabulary(llm):
    with pytest.raises(ValueError, match="stop_token_ids has 99999999"):
        llm.generate([5], stop_token_ids=[99999999])


def test_a_path_that_is_no_text_is_named(llm):
    with pytest.raises(ovfast.ModelError, match=r"no-such-\\xff"):
        _core.Engine(b"/no-such-\xff", llm.tokenizer, _core.EngineOptions())


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_waiting_without_end(llm, timeout):
    request = llm.stream([5], max_new_tokens=30, ignore_eos=True)._request
    assert request.wait(timeout=timeout)
    with pytest.raises(ValueError, match="nan"):
        request.wait(timeout=math.nan)
