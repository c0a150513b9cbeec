"""The report on fixed figures, whose results are worked out by hand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ovfast.report import format_report, generation_dict, report_dict
from ovfast.results import Answer, Generation, GenerationMetrics

MIB = 1024 * 1024
INFO: Any = SimpleNamespace(
    device="CPU",
    threads=2,
    max_context=4096,
    kv_blocks=1000,
    kv_block_tokens=16,
    kv_cache_bytes=512 * MIB,
    read_seconds=0.25,
    compile_seconds=0.5,
)
MEMORY: Any = SimpleNamespace(
    peak_rss=900 * MIB, rss=800 * MIB, rss_file=450 * MIB, rss_anon=350 * MIB
)


def generation(gaps: list[float], generated: int, cached: int = 0, **changes: Any) -> Generation:
    metrics = GenerationMetrics(
        prompt_tokens=37,
        cached_tokens=cached,
        generated_tokens=generated,
        queue_seconds=0.05,
        ttft_seconds=0.25 if generated else 0.0,
        total_seconds=0.25 + math.fsum(gaps),
        inter_token_seconds=np.array(gaps, dtype=np.float32),
        infer_seconds=0.2,
        steps=generated,
    )
    values: dict[str, Any] = {
        "text": "fünf 🙂",
        "token_ids": list(range(generated)),
        "finish_reason": "stop",
        **changes,
    }
    return Generation([Answer(**values)], metrics)


def report(gaps: list[float], generated: int, **changes: Any) -> dict[str, Any]:
    return report_dict(generation(gaps, generated, **changes), INFO, MEMORY, load_seconds=1.5)


def test_keys_are_stable() -> None:
    assert list(report([0.02], 2)) == [
        "finish_reason",
        "finish_detail",
        "prompt_tokens",
        "cached_tokens",
        "generated_tokens",
        "device",
        "threads",
        "load_seconds",
        "read_seconds",
        "compile_seconds",
        "queue_seconds",
        "generate_seconds",
        "ttft_ms",
        "tpot_mean_ms",
        "tpot_p50_ms",
        "tpot_p99_ms",
        "tokens_per_second",
        "first_inference_latency_ms",
        "other_inference_latency_ms",
        "infer_seconds",
        "steps",
        "max_context_tokens",
        "kv_cache_bytes",
        "peak_rss_bytes",
        "rss_bytes",
        "shared_bytes",
        "private_bytes",
    ]


def test_every_key_is_documented() -> None:
    import ovfast.report

    for key in report([0.02], 2):
        assert f"\n{key} " in (ovfast.report.__doc__ or "")


def test_figures_and_units() -> None:
    figures = report([0.010, 0.020, 0.060], 4)
    assert figures["prompt_tokens"] == 37
    assert figures["generated_tokens"] == 4
    assert figures["load_seconds"] == 1.5
    assert figures["read_seconds"] == 0.25
    assert figures["compile_seconds"] == 0.5
    assert figures["queue_seconds"] == 0.05
    assert figures["generate_seconds"] == pytest.approx(0.34)
    assert figures["ttft_ms"] == pytest.approx(250)
    assert figures["first_inference_latency_ms"] == pytest.approx(200)
    assert figures["tpot_mean_ms"] == pytest.approx(30, abs=1e-3)
    assert figures["other_inference_latency_ms"] == figures["tpot_mean_ms"]
    assert figures["tpot_p50_ms"] == pytest.approx(20, abs=1e-3)
    assert 20 < figures["tpot_p99_ms"] <= 60.001
    assert figures["peak_rss_bytes"] == 900 * MIB
    assert figures["shared_bytes"] == 450 * MIB
    assert figures["private_bytes"] == 350 * MIB
    assert figures["kv_cache_bytes"] == 512 * MIB
    assert figures["max_context_tokens"] == 4096


def test_text_names_every_figure() -> None:
    lines = dict(
        line.split(":", 1) for line in format_report(report([0.010, 0.020, 0.060], 4)).split("\n")
    )
    values = {name: value.strip() for name, value in lines.items()}
    assert values["Input tokens"] == "37"
    assert values["Generated tokens"] == "4 in 0.34 s on CPU (2 threads)"
    assert values["Finish reason"] == "stop"
    assert values["TTFT"] == "250.0 ms"
    assert values["TPOT"].startswith("mean 30.0 ms, p50 20.0 ms, p99 ")
    assert values["Throughput"].endswith(" tokens/s")
    assert values["First inference latency"] == "200.0 ms"
    assert values["Other inference latency"] == "30.0 ms/token"
    assert values["Load time"] == "1.50 s (read 0.25 s, compile 0.50 s)"
    assert values["Memory"] == "peak RSS 900 MiB, shared (file-backed) 450 MiB"


def test_cached_tokens_are_named() -> None:
    figures = report([0.01], 2, cached=32)
    assert figures["cached_tokens"] == 32
    assert "37 (32 cached)\n" in format_report(figures)


def test_one_token_has_no_time_between_tokens() -> None:
    figures = report([], 1)
    assert figures["ttft_ms"] == pytest.approx(250)
    for key in ("tpot_mean_ms", "tpot_p50_ms", "tpot_p99_ms", "other_inference_latency_ms"):
        assert figures[key] is None
    text = format_report(figures)
    assert "mean n/a, p50 n/a, p99 n/a" in text
    assert "None" not in text


def test_no_token_has_no_first_one() -> None:
    figures = report([], 0, finish_reason="cancelled")
    assert figures["ttft_ms"] is None
    assert figures["first_inference_latency_ms"] is None
    text = format_report(figures)
    assert "cancelled" in text
    assert "None" not in text


def test_everything_is_json() -> None:
    position = SimpleNamespace(
        chosen=SimpleNamespace(token_id=np.int64(5), logprob=np.float32(-0.5)),
        top=[
            SimpleNamespace(token_id=5, logprob=-0.5),
            SimpleNamespace(token_id=7, logprob=-math.inf),
        ],
    )
    whole = generation([0.01], 2, logprobs=[position], stop_string="END")
    figures = report_dict(whole, INFO, MEMORY, load_seconds=1.5)
    back = json.loads(json.dumps(generation_dict(whole, figures, "<{}>".format), allow_nan=False))
    assert back["text"] == "fünf 🙂"
    assert back["token_ids"] == [0, 1]
    assert back["finish_reason"] == "stop"
    assert back["stop_string"] == "END"
    assert back["logprobs"] == [
        {
            "token_id": 5,
            "token": "<5>",
            "logprob": -0.5,
            "top": [
                {"token_id": 5, "token": "<5>", "logprob": -0.5},
                {"token_id": 7, "token": "<7>", "logprob": -9999.0},
            ],
        }
    ]
    assert back["metrics"] == figures
    assert "answers" not in back


def test_several_answers_are_all_there() -> None:
    one = generation([0.01], 2)
    other = Answer(text="b", token_ids=[9], finish_reason="length", stop_string=None)
    both = Generation([*one.answers, other], one.metrics)
    back = generation_dict(both, report([0.01], 2), str)
    assert back["text"] == one.text
    assert [entry["text"] for entry in back["answers"]] == [one.text, "b"]
    assert back["answers"][1]["token_ids"] == [9]
    assert back["answers"][1]["finish_reason"] == "length"


def test_what_was_not_asked_for_is_null() -> None:
    whole = generation([0.01], 2)
    back = generation_dict(whole, report([0.01], 2), str)
    assert back["logprobs"] is None
    assert back["stop_string"] is None


@pytest.mark.parametrize(
    ("room", "kv_blocks", "detail"),
    [
        (39, 1000, "the context is full"),
        (48, 3, "the KV cache is full"),
        (40, 1000, None),
    ],
)
def test_an_answer_cut_by_full_memory_says_so(
    room: int, kv_blocks: int, detail: str | None
) -> None:
    info = SimpleNamespace(**{**vars(INFO), "max_context": room, "kv_blocks": kv_blocks})
    whole = generation([0.01], room - 37 if detail else 2, finish_reason="length")
    figures = report_dict(whole, info, MEMORY, load_seconds=1.5)
    assert figures["finish_detail"] == detail
    expected = "length" if detail is None else f"length ({detail})"
    assert f"Finish reason:           {expected}\n" in format_report(figures)
    stopped = generation([0.01], room - 37, finish_reason="stop")
    assert report_dict(stopped, info, MEMORY, load_seconds=1.5)["finish_detail"] is None
