"""A model in a process of its own: its answers, how fast they come, and the memory it takes.

`run_model` starts `python -m ovfast.evaluate.worker`, which reads one JSON object from standard
input and prints another.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast.crypto import Key
from ovfast.errors import CapacityError, DecryptionError, Error, ModelError
from ovfast.model_dir import ModelDir

if TYPE_CHECKING:
    from ovfast.results import Generation

__all__ = ["RawAnswer", "Run", "Speed", "load_once", "run_model"]

_ERRORS = {
    "ModelError": ModelError,
    "DecryptionError": DecryptionError,
    "CapacityError": CapacityError,
    "ValueError": ValueError,
}
_SPEED_PROMPT, _SPEED_TOKENS, _SPEED_RUNS = 128, 32, 3
_NEUTRAL = {
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Plain greedy decoding, whatever the model's generation_config.json says."""


@dataclass(frozen=True)
class RawAnswer:
    """A greedy answer."""

    token_ids: list[int]
    """The token that ended it included."""
    text: str
    ended: bool
    """By itself: not cut off by its length."""


@dataclass(frozen=True)
class Speed:
    """What running a model costs, in a process of its own."""

    prompt_tokens: int
    generated_tokens: int
    runs: int
    """Figures are medians over so many, after one that is not counted."""
    ttft_ms: float
    tpot_ms: float
    tokens_per_second: float
    """Generated tokens by the whole time of an answer, the first token's included."""
    load_seconds: float
    peak_rss_bytes: int
    threads: int
    weights_bytes: int
    """Of openvino_model.bin."""
    disk_bytes: int
    """Of all files of the directory, packed copies of a stock model not among them."""


@dataclass(frozen=True)
class Run:
    """What a worker found out."""

    answers: list[RawAnswer]
    """To the prompts, computed one after the other: every run gives the same."""
    batch: list[RawAnswer]
    """To the prompts that were computed together."""
    speed: Speed | None


def run_model(
    model_dir: Path | ModelDir,
    prompts: Sequence[Sequence[int]],
    batch: Sequence[Sequence[int]] = (),
    *,
    max_new_tokens: int,
    speed: bool,
) -> Run:
    """Load a model in a fresh process, let it answer prompts, and measure it.

    Args:
        model_dir: A model directory. A stock one is packed first where it was not, unless it is
            encrypted.
        prompts: Token ids, to be answered one after the other.
        batch: Token ids, to be answered together. That is faster, but which of them share a step is
            chance, and so is how the logits of tokens that are equally good are rounded.
        max_new_tokens: Tokens of an answer, at most.
        speed: Measure time and memory too.

    Raises:
        ModelError, CapacityError, Error: The model cannot be loaded or does not run.
    """
    model = ModelDir.check(model_dir)
    if speed and not model.packed and not model.files.encrypted:
        load_once(model.path)  # so that the figures are those of every later load
    result = _call(
        {
            "model_dir": str(model.path.resolve()),
            "load_only": False,
            "prompts": [list(ids) for ids in prompts],
            "batch": [list(ids) for ids in batch],
            "max_new_tokens": max_new_tokens,
            "speed": speed,
        },
        model.key,
    )
    return Run(
        answers=[RawAnswer(**answer) for answer in result["answers"]],
        batch=[RawAnswer(**answer) for answer in result["batch"]],
        speed=Speed(**result["speed"]) if speed else None,
    )


def load_once(model_dir: Path) -> None:
    """Load a model in a fresh process, which packs a stock one where that was not done before."""
    _call({"model_dir": str(model_dir.resolve()), "load_only": True})


def _call(task: dict[str, Any], key: Key | None = None) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        descriptors: tuple[int, ...] = ()
        if key is not None:
            # Through a pipe: neither arguments nor the environment are secret.
            receiver, sender = os.pipe()
            stack.callback(os.close, receiver)
            try:
                key.send(sender)
            finally:
                os.close(sender)
            descriptors = (receiver,)
            task = {**task, "key": receiver}
        child = subprocess.run(
            [sys.executable, "-m", "ovfast.evaluate.worker"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=False,
            pass_fds=descriptors,
        )
    try:
        result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = child.stderr.strip().splitlines()
        how = f"signal {-child.returncode}" if child.returncode < 0 else "an error"
        raise Error(
            f"the process that runs '{task['model_dir']}' ended with {how}"
            + (f": {said[-1]}" if said else "")
        ) from None
    if "error" in result:
        raise _ERRORS.get(result["error"], Error)(result["message"])
    return result


def _work(task: dict[str, Any]) -> dict[str, Any]:
    from ovfast import _core
    from ovfast.llm import LLM

    model_dir = Path(task["model_dir"])
    key = Key.receive(task["key"]) if "key" in task else None
    with LLM(model_dir, prefix_caching=False, progress=False, key=key) as llm:
        if task["load_only"]:
            return {}
        speed = None
        if task["speed"]:
            speed = _measure(llm)
            # Before the answers, which are computed together and take more.
            speed["peak_rss_bytes"] = int(_core.read_process_memory().peak_rss)
            speed["weights_bytes"] = ModelDir.check(model_dir, key).weights_bytes
            files = (file for file in model_dir.iterdir() if file.is_file())
            speed["disk_bytes"] = sum(file.stat().st_size for file in files)
        options = {**_NEUTRAL, "max_new_tokens": task["max_new_tokens"]}
        answers = [_answer(llm.generate(ids, **options)) for ids in task["prompts"]]
        streams = [llm.stream(ids, **options) for ids in task["batch"]]
        batch = [_answer(stream.result) for stream in streams]
    return {"answers": answers, "batch": batch, "speed": speed}


def _answer(generation: Generation) -> dict[str, Any]:
    return {
        "token_ids": [int(token) for token in generation.token_ids],
        "text": generation.text,
        "ended": generation.finish_reason == "stop",
    }


def _measure(llm: Any) -> dict[str, Any]:
    import random

    room = llm.info.max_context
    tokens = min(_SPEED_TOKENS, max(2, room // 4))
    length = min(_SPEED_PROMPT, room - tokens)
    vocabulary = range(min(llm.tokenizer.vocab_size, llm.info.vocab_size))
    ids = random.Random(0).choices(vocabulary, k=length)  # what they say costs nothing
    options = {**_NEUTRAL, "max_new_tokens": tokens, "ignore_eos": True}
    runs = [llm.generate(ids, **options).metrics for _ in range(1 + _SPEED_RUNS)][1:]
    return {
        "prompt_tokens": length,
        "generated_tokens": tokens,
        "runs": len(runs),
        "ttft_ms": 1e3 * statistics.median(one.ttft_seconds for one in runs),
        "tpot_ms": 1e3 * statistics.median(one.tpot_p50 for one in runs),
        "tokens_per_second": statistics.median(one.tokens_per_second for one in runs),
        "load_seconds": llm.load_seconds,
        "threads": int(llm.info.threads),
    }


def _main() -> None:
    # Libraries may print; the answer goes where nothing else does.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        result = _work(json.load(sys.stdin))
    except (Error, ValueError, OSError) as error:
        result = {"error": type(error).__name__, "message": str(error)}
    with contextlib.closing(answer):
        print(json.dumps(result), file=answer)


if __name__ == "__main__":
    _main()
