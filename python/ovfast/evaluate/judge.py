"""Whether a model passes: the thresholds that it misses, and in which way it degenerates."""

from __future__ import annotations

from ovfast.evaluate.degeneration import too_many_loops
from ovfast.evaluate.generations import Generations
from ovfast.evaluate.options import Thresholds
from ovfast.evaluate.text import TextQuality

__all__ = ["degenerations", "missed"]

_SHOWN = 200


def missed(text: TextQuality, thresholds: Thresholds) -> list[str]:
    """Say which thresholds were missed, a sentence each."""
    found = []
    for what, value, limit, at_least in (
        ("the mean KL divergence", text.kl_mean, thresholds.max_kl, False),
        ("the top-1 agreement", text.top1_agreement, thresholds.min_agreement, True),
        ("the perplexity ratio", text.perplexity_ratio, thresholds.max_perplexity_ratio, False),
    ):
        if value is None or limit is None:
            continue
        # Written so that NaN misses, too.
        reached = value >= limit if at_least else value <= limit
        if not reached:
            found.append(
                f"{what} is {value:.6g}, and {'at least' if at_least else 'at most'} {limit:g} was "
                "asked for"
            )
    return found


def degenerations(text: TextQuality, generations: Generations | None, vocab_size: int) -> list[str]:
    """Say in which way the output is no language any more, with a sample."""
    found = []
    reference = text.perplexity_reference
    if text.perplexity >= vocab_size and (reference is None or reference < vocab_size):
        found.append(
            f"the model predicts text no better than guessing: its perplexity is "
            f"{text.perplexity:.4g}, and guessing has that of the vocabulary, {vocab_size}"
            + _sample(generations)
        )
    if generations is not None and too_many_loops(generations.loop_share):
        worst = next(
            one
            for one in generations.answers
            if one.loop_unit is not None
            and (one.reference is None or one.reference_loop_unit is None)
        )
        loops = generations.loops if generations.new_loops is None else generations.new_loops
        beside = "" if generations.new_loops is None else ", where the original's do not"
        found.append(
            f"the answers run into loops: {loops} of {generations.prompts}{beside}. To "
            f"{worst.prompt!r} it says {worst.answer[-_SHOWN:]!r}"
        )
    return found


def _sample(generations: Generations | None) -> str:
    if generations is None or not generations.answers:
        return ""
    first = generations.answers[0]
    return f". To {first.prompt!r} it says {first.answer[:_SHOWN]!r}"
