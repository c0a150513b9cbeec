"""What a generation returns: the text, how it ended, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovfast import _core


@dataclass(frozen=True)
class GenerationMetrics:
    """Times of one request, in seconds, measured in the engine from its submission on."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, not computed again: it began like an earlier one."""
    generated_tokens: int
    """All answers together."""
    queue_seconds: float
    """Submitted to first scheduled."""
    ttft_seconds: float
    """Time to first token: submitted to first token, queueing included."""
    total_seconds: float
    """Submitted to last token."""
    inter_token_seconds: NDArray[np.float32] = field(repr=False)
    """[generated_tokens - answers]: from each token to the next, answer by answer."""
    infer_seconds: float
    """Inside the model while this request took part in its steps."""
    steps: int
    preemptions: int = 0
    """Times that an answer gave its KV memory back for others and was computed again."""

    @property
    def tpot_mean(self) -> float | None:
        """Mean time per output token after the first; None with fewer than two tokens."""
        times = self.inter_token_seconds
        return float(np.mean(times)) if times.size else None

    @property
    def tpot_p50(self) -> float | None:
        """Median time per output token after the first; None with fewer than two tokens."""
        return self._percentile(50)

    @property
    def tpot_p99(self) -> float | None:
        """99th percentile of the time per output token; None with fewer than two tokens."""
        return self._percentile(99)

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens over the whole time, the first token's included; None without tokens."""
        if not self.generated_tokens or self.total_seconds <= 0:
            return None
        return self.generated_tokens / self.total_seconds

    def _percentile(self, percent: float) -> float | None:
        times = self.inter_token_seconds
        return float(np.percentile(times, percent)) if times.size else None


@dataclass(frozen=True)
class Answer:
    """One of the ``n`` answers to a prompt."""

    text: str
    token_ids: list[int]
    """The generated ids, the one that ended the answer included."""
    finish_reason: str
    """``"stop"``, ``"length"`` or ``"cancelled"``."""
    stop_string: str | None = None
    """The stop string that ended the answer, if one did."""
    logprobs: list[_core.PositionLogprobs] | None = field(default=None, repr=False)
    """One entry a token when ``logprobs=k`` was asked for."""


@dataclass(frozen=True)
class Generation:
    """The answers to one prompt. The plain attributes are those of the first answer."""

    answers: list[Answer]
    metrics: GenerationMetrics

    @property
    def text(self) -> str:
        """Text of the first answer."""
        return self.answers[0].text

    @property
    def token_ids(self) -> list[int]:
        """Generated ids of the first answer, the one that ended it included."""
        return self.answers[0].token_ids

    @property
    def finish_reason(self) -> str:
        """Why the first answer ended: ``"stop"``, ``"length"`` or ``"cancelled"``."""
        return self.answers[0].finish_reason

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the first answer, if one did."""
        return self.answers[0].stop_string

    @property
    def logprobs(self) -> list[_core.PositionLogprobs] | None:
        """Log-probabilities of the first answer's tokens, when asked for."""
        return self.answers[0].logprobs

    @classmethod
    def from_request(cls, request: _core.Request) -> Generation:
        """Reads an ended request."""
        answers = [
            Answer(
                text=answer.text,
                token_ids=answer.token_ids,
                finish_reason=answer.finish_reason,
                stop_string=answer.stop_string or None,
                logprobs=answer.logprobs or None,
            )
            for answer in request.answers
        ]
        times = request.metrics
        metrics = GenerationMetrics(
            prompt_tokens=times.prompt_tokens,
            cached_tokens=times.cached_tokens,
            generated_tokens=times.generated_tokens,
            queue_seconds=times.queue_seconds,
            ttft_seconds=times.ttft_seconds,
            total_seconds=times.total_seconds,
            inter_token_seconds=times.inter_token_seconds,
            infer_seconds=times.infer_seconds,
            steps=times.steps,
            preemptions=times.preemptions,
        )
        return cls(answers, metrics)
