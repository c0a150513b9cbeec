"""Time to the first token and time per further token, one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from measure import QuietProbe, agreement, alternate, record, repeats
from oracle import Oracle, worst_gaps
from peers import Peer, Target
from prompts import PromptSource

# GenAI's two pipelines are one engine; at one request the simple one stands for both.
_WITHOUT = ("genai-cb",)
# Computes each prompt anew, which takes it minutes at 8,000 tokens.
_SLOW_PREFILL = ("llama.cpp",)


@pytest.mark.parametrize(("tokens", "own_rounds"), [(32, 7), (285, 5), (1054, 3), (2077, 3)])
def test_ttft(
    benchmark: Any,
    available: Callable[..., list[Peer]],
    target: Target,
    oracle: Callable[[], Oracle],
    prompts: PromptSource,
    rounds: Callable[[int], int],
    probe: QuietProbe,
    tokens: int,
    own_rounds: int,
) -> None:
    """Every round has a prompt of its own, so that no engine finds it in a prefix cache."""
    peers = available(without=_WITHOUT)
    # Engines prefill in chunks of at most 512 tokens: longer prompts meet no new kernel shapes.
    warm_up = prompts.prompt(min(tokens, 512), "ttft warm-up")
    for peer in peers:
        peer.generate(warm_up, 1)

    results = alternate(
        benchmark,
        peers,
        lambda peer, number: peer.generate(prompts.prompt(tokens, f"ttft {number}"), 1),
        rounds=rounds(own_rounds),
        probe=probe,
    )
    assert not any(run.cached_tokens for runs in results.values() for run in runs)
    record(
        benchmark,
        metric="TTFT",
        model=target.name,
        case=f"{tokens} prompt tokens",
        unit="ms",
        samples={name: [1e3 * run.ttft_seconds for run in runs] for name, runs in results.items()},
        agreement=agreement(
            {name: [run.token_ids for run in runs] for name, runs in results.items()}
        ),
        worst_gap=worst_gaps(
            oracle(),
            {
                name: [(prompts.prompt(tokens, "ttft 0"), runs[0].token_ids)]
                for name, runs in results.items()
            },
        ),
    )


@pytest.mark.parametrize(("context", "own_rounds"), [(32, 5), (1100, 3), (8192, 2)])
def test_tpot(
    benchmark: Any,
    available: Callable[..., list[Peer]],
    target: Target,
    oracle: Callable[[], Oracle],
    prompts: PromptSource,
    rounds: Callable[[int], int],
    probe: QuietProbe,
    context: int,
    own_rounds: int,
) -> None:
    """Median over the tokens of an answer, whose prompt is the same in every round.

    The warm-up leaves it in the prefix caches, so that each round begins from the same state; how
    long a decoded token takes is the same with and without.
    """
    new_tokens = 64
    peers = available(without=_WITHOUT + (_SLOW_PREFILL if context > 4096 else ()))
    prompt = prompts.prompt(context, "tpot")
    for peer in peers:
        peer.generate(prompt, 8)

    results = alternate(
        benchmark,
        peers,
        lambda peer, _: peer.generate(prompt, new_tokens),
        rounds=rounds(own_rounds),
        probe=probe,
    )
    answers = {name: [run.token_ids for run in runs] for name, runs in results.items()}
    record(
        benchmark,
        metric="TPOT",
        model=target.name,
        case=f"after {context} prompt tokens",
        unit="ms",
        samples={
            name: [1e3 * float(np.median(run.inter_token_seconds)) for run in runs]
            for name, runs in results.items()
        },
        agreement=agreement(answers),
        repeats=repeats(answers),
        worst_gap=worst_gaps(
            oracle(), {name: [(prompt, of_peer[0])] for name, of_peer in answers.items()}
        ),
    )
