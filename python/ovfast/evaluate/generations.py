"""What a model says, beside what the one that it was made of says to the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from ovfast.evaluate.degeneration import LoopShare, check_finite, find_loop
from ovfast.evaluate.metrics import divergent_tokens, similarity
from ovfast.evaluate.prompts import Prompt, shown
from ovfast.evaluate.text import side_by_side

if TYPE_CHECKING:
    from ovfast.evaluate.logits import PositionLogits
    from ovfast.evaluate.worker import RawAnswer

__all__ = ["ComparedAnswer", "Generations", "compare_answers", "describe_answers"]


@dataclass(frozen=True)
class ComparedAnswer:
    """A greedy answer; what needs an original is None without one."""

    prompt: str
    answer: str
    tokens: int
    loop_unit: int | None
    """Tokens of the unit that the answer repeats until it is cut off; None if it does not loop."""
    reference: str | None = None
    reference_tokens: int | None = None
    reference_loop_unit: int | None = None
    first_divergent_token: int | None = None
    """FDT: tokens of the original's answer before the first that the model would have chosen
    otherwise; None if there is none."""
    divergent_tokens: int | None = None
    """How many of them the model would have chosen otherwise, each after the original's own."""
    similarity: float | None = None
    """Of both answers, 0 to 1."""


@dataclass(frozen=True)
class Generations:
    """Over all prompts; what needs an original is None without one."""

    prompts: int
    max_new_tokens: int
    loops: int
    """Answers that end in a loop."""
    new_loops: int | None
    """Of them, where the original's does not."""
    first_divergent_token: float | None
    """Mean FDT; an answer without a divergent token counts with its length."""
    divergent_share: float | None
    """SDT: divergent tokens by tokens, of all answers together."""
    similarity: float | None
    identical: float | None
    """Share of prompts with the very same answer."""
    answers: list[ComparedAnswer]

    @property
    def loop_share(self) -> LoopShare:
        """For `too_many_loops`."""
        return LoopShare(self.prompts, self.loops, self.new_loops)


def describe_answers(
    prompts: Sequence[Prompt], answers: Sequence[RawAnswer], max_new_tokens: int
) -> Generations:
    """Judge answers without an original."""
    compared = [
        ComparedAnswer(shown(prompt), one.text, len(one.token_ids), _loop(one))
        for prompt, one in zip(prompts, answers, strict=True)
    ]
    return Generations(
        prompts=len(compared),
        max_new_tokens=max_new_tokens,
        loops=sum(one.loop_unit is not None for one in compared),
        new_loops=None,
        first_divergent_token=None,
        divergent_share=None,
        similarity=None,
        identical=None,
        answers=compared,
    )


def compare_answers(
    prompts: Sequence[Prompt],
    prompt_ids: Sequence[Sequence[int]],
    answers: Sequence[RawAnswer],
    references: Sequence[RawAnswer],
    model: PositionLogits,
    reference: PositionLogits,
    *,
    max_new_tokens: int,
    name: str,
    show: Callable[[float], None] = lambda _: None,
) -> Generations:
    """Compare answers with the original's, and at each token of those what either would say.

    Raises NotFiniteError when logits of the model are no numbers.
    """
    compared = []
    for number, (prompt, ids, ours, theirs) in enumerate(
        zip(prompts, prompt_ids, answers, references, strict=True)
    ):
        best, expected = _best_tokens(model, reference, ids, theirs, name)
        divergence = divergent_tokens(expected, best)
        compared.append(
            ComparedAnswer(
                prompt=shown(prompt),
                answer=ours.text,
                tokens=len(ours.token_ids),
                loop_unit=_loop(ours),
                reference=theirs.text,
                reference_tokens=divergence.tokens,
                reference_loop_unit=_loop(theirs),
                first_divergent_token=divergence.first,
                divergent_tokens=divergence.divergent,
                similarity=similarity(theirs.token_ids, ours.token_ids),
            )
        )
        show((number + 1) / len(prompts))
    lengths = [len(one.token_ids) for one in references]
    firsts = [
        length if one.first_divergent_token is None else one.first_divergent_token
        for one, length in zip(compared, lengths, strict=True)
    ]
    loops = [one for one in compared if one.loop_unit is not None]
    return Generations(
        prompts=len(compared),
        max_new_tokens=max_new_tokens,
        loops=len(loops),
        new_loops=sum(one.reference_loop_unit is None for one in loops),
        first_divergent_token=mean(map(float, firsts)),
        divergent_share=sum(one.divergent_tokens or 0 for one in compared) / sum(lengths),
        similarity=mean(one.similarity or 0.0 for one in compared),
        identical=mean(
            float(ours.token_ids == theirs.token_ids)
            for ours, theirs in zip(answers, references, strict=True)
        ),
        answers=compared,
    )


def _best_tokens(
    model: PositionLogits,
    reference: PositionLogits,
    prompt: Sequence[int],
    answer: RawAnswer,
    name: str,
) -> tuple[list[int], list[int]]:
    """The best tokens of the model and of the original at each token of the original's answer."""
    ids = [*prompt, *answer.token_ids[:-1]]
    best: list[int] = []
    expected: list[int] = []
    for first, ours, theirs in side_by_side(model, reference, ids):
        part = slice(max(0, len(prompt) - 1 - first), None)
        assert theirs is not None
        if len(ours[part]):
            check_finite(ours[part], first, name, answer.text)
            best += np.argmax(ours[part], 1).tolist()
            expected += np.argmax(theirs[part], 1).tolist()
    return best, expected


def _loop(answer: RawAnswer) -> int | None:
    return None if answer.ended else find_loop(answer.token_ids)
