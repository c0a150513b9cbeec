"""What the engine adds to the model's own infer() in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measure import QuietProbe, alternate, record, repeats
from peers import PEERS, Peer, Target
from prompts import PromptSource


def test_engine_overhead(
    benchmark: Any,
    available: Callable[..., list[Peer]],
    target: Target,
    prompts: PromptSource,
    rounds: Callable[[int], int],
    probe: QuietProbe,
) -> None:
    """One request: time from scheduling to the last token, less infer(), a step."""
    peers = available(without=tuple(name for name in PEERS if name != "ovfast"))
    prompt = prompts.prompt(32, "overhead")
    peers[0].generate(prompt, 8)

    runs = alternate(
        benchmark,
        peers,
        lambda peer, _: peer.generate(prompt, 128),
        rounds=rounds(3),
        probe=probe,
    )["ovfast"]
    overhead = [run.overhead_seconds for run in runs]
    infer = [run.infer_seconds for run in runs]
    assert all(seconds is not None and seconds > 0 for seconds in (*overhead, *infer))
    record(
        benchmark,
        metric="engine overhead",
        model=target.name,
        case="batch 1, per step",
        unit="ms",
        samples={"ovfast": [1e3 * seconds for seconds in overhead]},
        repeats=repeats({"ovfast": [run.token_ids for run in runs]}),
        infer_ms=[1e3 * seconds for seconds in infer],
    )
