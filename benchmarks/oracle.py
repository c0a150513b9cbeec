"""Whether an answer is what the model would say, by the f32 logits of the stock graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from all_positions import EXACT, Prefill, read, split_lm_head
from peers import OUR_OWN

_CHUNK = 512
# Logits of engines that round weights and activations to 8 bits are off by 0.1 to 0.5, those of the
# best tokens of a text lie 2 to 3 apart, and those of any other tokens 10 or more below the best.
_TOLERATED = 2.0


class Oracle:
    """The stock graph in f32, nothing quantized on the fly."""

    def __init__(self, model_dir: Path) -> None:
        core = ov.Core()
        hidden, head = split_lm_head(read(model_dir, core))
        self._hidden = Prefill(hidden, EXACT, core)
        self._head = core.compile_model(head, "CPU", EXACT)

    def worst_gap(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """How far the logit of a token of `answer` was below the best, at the worst of them."""
        ids = [*prompt, *answer[:-1]]
        states = self._hidden(ids, _CHUNK)[len(prompt) - 1 :]
        logits = self._head([states])[0]
        return float((logits.max(1) - logits[np.arange(len(answer)), list(answer)]).max())


def worst_gaps(
    oracle: Oracle, answers: Mapping[str, Sequence[tuple[Sequence[int], Sequence[int]]]]
) -> dict[str, float]:
    """Find the worst gap by engine, of its (prompt, answer) pairs. Ours are asserted to be small."""
    gaps = {
        name: max(oracle.worst_gap(prompt, answer) for prompt, answer in pairs)
        for name, pairs in answers.items()
    }
    for name in OUR_OWN:
        assert gaps.get(name, 0.0) <= _TOLERATED, (
            f"{name} chose a token {gaps[name]} below the best"
        )
    return gaps
