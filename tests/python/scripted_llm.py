"""An LLM that answers by rule instead of by model, so that tests of the command line are exact.

`python -m scripted_llm ARGS` is the command `ovfast` with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import numpy as np

from ovfast.errors import CapacityError, ModelError
from ovfast.results import Answer, Generation, GenerationMetrics

CONTEXT = 40
"""Words that fit into a conversation."""


class ScriptedStream:
    def __init__(self, pieces: list[str], finish_reason: str, delay: float, words: int) -> None:
        self._pieces, self._reason, self._delay, self._words = pieces, finish_reason, delay, words
        self._given: list[str] = []
        self._cancelled = False

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if self._cancelled:
                self._reason = "cancelled"
                return
            self._given.append(piece)
            yield piece
            if len(self._given) == 3 and (file := os.environ.get("SCRIPTED_LLM_STARTED")):
                Path(file).touch()
            time.sleep(self._delay)

    def cancel(self) -> None:
        self._cancelled = True

    @property
    def result(self) -> Generation:
        count = len(self._given)
        metrics = GenerationMetrics(
            prompt_tokens=self._words,
            cached_tokens=0,
            generated_tokens=count,
            queue_seconds=0.0,
            ttft_seconds=0.1,
            total_seconds=0.1 + 0.01 * count,
            inter_token_seconds=np.full(max(count - 1, 0), 0.01, dtype=np.float32),
            infer_seconds=0.05,
            steps=count,
        )
        ids = list(range(count))
        return Generation([Answer("".join(self._given), ids, self._reason)], metrics)


@final
class ScriptedLLM:
    """What the last words say decides: slow, silent, long, full, refused or an echo."""

    last: ScriptedLLM

    def __init__(self, source: str, *, progress: bool = True, **engine: Any) -> None:
        if source == "missing":
            raise ModelError("'missing' does not exist")
        self.model_dir, self.engine, self.progress = Path(source), engine, progress
        self.load_seconds = 1.25
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.closed = False
        self.info = SimpleNamespace(
            device="CPU",
            threads=2,
            max_context=CONTEXT,
            kv_blocks=4 if self.model_dir.name == "small-cache" else 40,
            kv_block_tokens=CONTEXT // 4,
            kv_cache_bytes=1 << 20,
            read_seconds=0.25,
            compile_seconds=0.5,
        )
        ScriptedLLM.last = self

    @property
    def chat_template(self) -> object:
        if self.model_dir.name == "base":
            raise ModelError("this model has no chat template")
        if self.model_dir.name == "broken":
            raise ModelError("the chat template cannot be used") from ValueError("line 3")
        return object()

    def stream(self, prompt: str, **options: Any) -> ScriptedStream:
        self.calls.append(("stream", prompt, options))
        return self._stream(f"raw:{prompt}", len(prompt.split()))

    def stream_chat(self, messages: list[dict[str, str]], **options: Any) -> ScriptedStream:
        self.calls.append(("stream_chat", [dict(message) for message in messages], options))
        words = sum(len(message["content"].split()) for message in messages)
        if words > CONTEXT:
            raise CapacityError(f"{words} tokens do not fit into {CONTEXT}")
        users = sum(message["role"] == "user" for message in messages)
        return self._stream(f"turn {users}: {messages[-1]['content']}", words)

    def _stream(self, reply: str, words: int) -> ScriptedStream:
        if "refused" in reply:
            raise ValueError("the template refuses")
        if "silent" in reply:
            return ScriptedStream([], "stop", 0.0, words)
        if "slow" in reply:
            return ScriptedStream([f"<{i}>" for i in range(2000)], "length", 0.01, words)
        if "full" in reply:
            return ScriptedStream(["x "] * (CONTEXT - words), "length", 0.0, words)
        reason = "length" if "long" in reply else "stop"
        return ScriptedStream(list(reply), reason, 0.0, words)

    def generate(self, prompt: str, **options: Any) -> Generation:
        return self._several(self.stream(prompt, **options), options)

    def chat(self, messages: list[dict[str, str]], **options: Any) -> Generation:
        return self._several(self.stream_chat(messages, **options), options)

    def _several(self, stream: ScriptedStream, options: dict[str, Any]) -> Generation:
        for _ in stream:
            pass
        one = stream.result
        answers = [Answer(f"{one.text} ({i})", one.token_ids, "stop") for i in range(options["n"])]
        return Generation(answers, one.metrics)

    def __enter__(self) -> ScriptedLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


if __name__ == "__main__":
    import ovfast.llm
    from ovfast.cli.main import main

    ovfast.llm.LLM = ScriptedLLM  # type: ignore[misc,assignment]
    main()
