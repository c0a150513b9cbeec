"""What a generation cost: as a dictionary for programs, and as text for people.

Pure functions of what the engine measured; nothing is measured here. The keys of
`report_dict` are stable, and each one that has a unit ends with it:

=============================== ================================================================
finish_reason                   "stop", "length" or "cancelled"
finish_detail                   what was full when an answer was cut: "the context is full" or "the
                                KV cache is full"; None for every other end
prompt_tokens                   tokens of the prompt
cached_tokens                   of these, not computed again: the prompt began like an earlier one
generated_tokens                tokens generated, all answers together
device                          OpenVINO's name of the device
threads                         compute threads
load_seconds                    loading the model, until the first request could be taken
read_seconds                    of these, reading and rewriting the model
compile_seconds                 of these, compiling it for the device
queue_seconds                   submitted -> first scheduled
generate_seconds                submitted -> last token
ttft_ms                         time to first token: submitted -> first token
tpot_mean_ms                    time per output token, the first one excluded: mean,
tpot_p50_ms                     median,
tpot_p99_ms                     99th percentile
tokens_per_second               generated_tokens / generate_seconds, the first token included
first_inference_latency_ms      first scheduled -> first token, so ttft without the queue
other_inference_latency_ms      mean time of each later token, as tpot_mean_ms
infer_seconds                   inside the model's infer() while the request ran
steps                           engine steps that it took part in
max_context_tokens              tokens of prompt and answer that fit, at most
kv_cache_bytes                  bound of the KV cache
peak_rss_bytes                  largest resident memory that the process had
rss_bytes                       resident memory now
shared_bytes                    of it, file-backed pages, which processes share
private_bytes                   of it, memory of this process alone
=============================== ================================================================

A figure that does not exist (tpot of one token, ttft of none) is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovfast._core import EngineInfo, PositionLogprobs, ProcessMemory, TokenLogprob
    from ovfast.results import Answer, Generation

__all__ = ["format_report", "full_memory", "generation_dict", "report_dict"]

_MIB = 1024 * 1024


def full_memory(generation: Generation, info: EngineInfo) -> str | None:
    """Return what cut the first answer short: "context", "KV cache", or None for neither."""
    length = generation.metrics.prompt_tokens + len(generation.token_ids)
    if generation.finish_reason != "length" or length < info.max_context:
        return None
    # The engine's context is what the cache holds where that is less than the model's own.
    by_cache = info.max_context == info.kv_blocks * info.kv_block_tokens
    return "KV cache" if by_cache else "context"


def report_dict(
    generation: Generation,
    info: EngineInfo,
    memory: ProcessMemory,
    *,
    load_seconds: float,
) -> dict[str, Any]:
    """The figures of one generation as JSON's types, under the keys listed above."""
    metrics = generation.metrics
    generated = int(metrics.generated_tokens)
    ttft = metrics.ttft_seconds if generated else None
    tpot_mean = _milliseconds(metrics.tpot_mean)
    full = full_memory(generation, info)
    return {
        "finish_reason": generation.finish_reason,
        "finish_detail": None if full is None else f"the {full} is full",
        "prompt_tokens": int(metrics.prompt_tokens),
        "cached_tokens": int(metrics.cached_tokens),
        "generated_tokens": generated,
        "device": info.device,
        "threads": int(info.threads),
        "load_seconds": _rounded(load_seconds),
        "read_seconds": _rounded(info.read_seconds),
        "compile_seconds": _rounded(info.compile_seconds),
        "queue_seconds": _rounded(metrics.queue_seconds),
        "generate_seconds": _rounded(metrics.total_seconds),
        "ttft_ms": _milliseconds(ttft),
        "tpot_mean_ms": tpot_mean,
        "tpot_p50_ms": _milliseconds(metrics.tpot_p50),
        "tpot_p99_ms": _milliseconds(metrics.tpot_p99),
        "tokens_per_second": _rounded(metrics.tokens_per_second),
        "first_inference_latency_ms": _milliseconds(
            None if ttft is None else ttft - metrics.queue_seconds
        ),
        "other_inference_latency_ms": tpot_mean,
        "infer_seconds": _rounded(metrics.infer_seconds),
        "steps": int(metrics.steps),
        "max_context_tokens": int(info.max_context),
        "kv_cache_bytes": int(info.kv_cache_bytes),
        "peak_rss_bytes": int(memory.peak_rss),
        "rss_bytes": int(memory.rss),
        "shared_bytes": int(memory.rss_file),
        "private_bytes": int(memory.rss_anon),
    }


def format_report(report: Mapping[str, Any]) -> str:
    """The text of what `report_dict` returned: one line a figure, without a newline at the end."""
    threads = f"{report['threads']} thread{'' if report['threads'] == 1 else 's'}"
    cached = f" ({report['cached_tokens']} cached)" if report["cached_tokens"] else ""
    generated = f"{report['generated_tokens']} in {report['generate_seconds']:.2f} s"
    tpot = ", ".join(
        f"{name} {_text(report[f'tpot_{name}_ms'], 'ms')}" for name in ("mean", "p50", "p99")
    )
    detail = f" ({report['finish_detail']})" if report["finish_detail"] else ""
    parts = f"read {report['read_seconds']:.2f} s, compile {report['compile_seconds']:.2f} s"
    peak = f"peak RSS {report['peak_rss_bytes'] / _MIB:.0f} MiB"
    shared = f"shared (file-backed) {report['shared_bytes'] / _MIB:.0f} MiB"
    rows = {
        "Input tokens": f"{report['prompt_tokens']}{cached}",
        "Generated tokens": f"{generated} on {report['device']} ({threads})",
        "Finish reason": f"{report['finish_reason']}{detail}",
        "TTFT": _text(report["ttft_ms"], "ms"),
        "TPOT": tpot,
        "Throughput": _text(report["tokens_per_second"], "tokens/s"),
        "First inference latency": _text(report["first_inference_latency_ms"], "ms"),
        "Other inference latency": _text(report["other_inference_latency_ms"], "ms/token"),
        "Load time": f"{report['load_seconds']:.2f} s ({parts})",
        "Memory": f"{peak}, {shared}",
    }
    width = max(map(len, rows)) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in rows.items())


def generation_dict(
    generation: Generation, report: Mapping[str, Any], token_text: Callable[[int], str]
) -> dict[str, Any]:
    """What `ovfast run --json` prints.

    `text`, `token_ids`, `finish_reason`, `stop_string` (null when none ended the answer) and
    `logprobs` (null when none were asked for; natural logarithms) are those of the first answer.
    When there are several, `answers` lists all of them with the same keys. `metrics` is `report`.
    `token_text` gives the text of a token id, for `logprobs`.
    """
    whole = _answer(generation.answers[0], token_text)
    if len(generation.answers) > 1:
        whole["answers"] = [_answer(answer, token_text) for answer in generation.answers]
    whole["metrics"] = dict(report)
    return whole


def _answer(answer: Answer, token_text: Callable[[int], str]) -> dict[str, Any]:
    return {
        "text": answer.text,
        "token_ids": [int(token) for token in answer.token_ids],
        "finish_reason": answer.finish_reason,
        "stop_string": answer.stop_string,
        "logprobs": _logprobs(answer.logprobs, token_text),
    }


def _logprobs(
    positions: list[PositionLogprobs] | None, token_text: Callable[[int], str]
) -> list[dict[str, Any]] | None:
    if not positions:
        return None

    def entry(token: TokenLogprob) -> dict[str, Any]:
        token_id = int(token.token_id)
        logprob = _finite(token.logprob)
        return {"token_id": token_id, "token": token_text(token_id), "logprob": logprob}

    return [
        {**entry(position.chosen), "top": [entry(token) for token in position.top]}
        for position in positions
    ]


def _finite(logprob: float) -> float:
    # JSON has no infinity. This is the number that servers of the OpenAI API send in its place.
    return max(float(logprob), -9999.0)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(float(seconds) * 1e3, 3)


def _text(value: float | None, unit: str) -> str:
    return "n/a" if value is None else f"{value:.1f} {unit}"
