"""Tokens a second when several requests are there at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from measure import QuietProbe, agreement, alternate, record
from oracle import Oracle, worst_gaps
from peers import Peer, Target
from prompts import PromptSource

_PROMPT_TOKENS = 64
_NEW_TOKENS = 64


@pytest.mark.parametrize(("requests", "own_rounds"), [(1, 5), (4, 3), (16, 3)])
def test_throughput(
    benchmark: Any,
    available: Callable[..., list[Peer]],
    target: Target,
    oracle: Callable[[], Oracle],
    prompts: PromptSource,
    rounds: Callable[[int], int],
    probe: QuietProbe,
    requests: int,
    own_rounds: int,
) -> None:
    """Generated tokens of all requests over the time from submitting to the last token.

    Only engines that batch take part: the others' rate stays what it is at one request.
    """
    peers = available(without=("genai",), batching=True)
    warm_up = [prompts.prompt(_PROMPT_TOKENS, f"warm-up {index}") for index in range(requests)]
    for peer in peers:
        peer.generate_together(warm_up, 8)

    def together(peer: Peer, number: int) -> tuple[list[list[int]], float]:
        batch = [
            prompts.prompt(_PROMPT_TOKENS, f"throughput {number} {index}")
            for index in range(requests)
        ]
        answers, seconds = peer.generate_together(batch, _NEW_TOKENS)
        assert [len(answer) for answer in answers] == [_NEW_TOKENS] * requests, peer.name
        return answers, seconds

    results = alternate(benchmark, peers, together, rounds=rounds(own_rounds), probe=probe)
    first_prompts = [prompts.prompt(_PROMPT_TOKENS, f"throughput 0 {i}") for i in range(requests)]
    record(
        benchmark,
        metric="throughput",
        model=target.name,
        case=f"{requests} concurrent",
        unit="tokens/s",
        samples={
            name: [requests * _NEW_TOKENS / seconds for _, seconds in of_peer]
            for name, of_peer in results.items()
        },
        agreement=agreement(
            {
                name: [answer for answers, _ in of_peer for answer in answers]
                for name, of_peer in results.items()
            }
        ),
        worst_gap=worst_gaps(
            oracle(),
            {
                name: list(zip(first_prompts, of_peer[0][0], strict=True))
                for name, of_peer in results.items()
            },
        ),
    )
