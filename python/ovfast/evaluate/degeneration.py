"""When a model's output is no language any more: numbers that are none, loops, mere guessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovfast.errors import Error

__all__ = ["LoopShare", "NotFiniteError", "check_finite", "find_loop", "too_many_loops"]

_LONGEST_UNIT, _LEAST_REPEATS, _LEAST_TOKENS = 32, 3, 32
_NEW_LOOPS, _LOOPS = 0.25, 0.5


class NotFiniteError(Error):
    """The logits of a model hold NaN or infinity."""


@dataclass(frozen=True)
class LoopShare:
    """How many answers end in a loop."""

    prompts: int
    loops: int
    new_loops: int | None
    """Of them, where the original's answer to the same prompt does not; None without one."""


def check_finite(logits: npt.NDArray[np.float32], first: int, name: str, context: str) -> None:
    """Raise NotFiniteError for the first row of `logits` whose largest value is no number.

    A token that cannot be chosen may have -inf. `first` is the first row's position, `name` the
    model's, `context` the text that ends at or behind the rows; the message shows its end.
    """
    # The largest of a row with NaN is NaN.
    bad = np.flatnonzero(~np.isfinite(logits.max(1)))
    if len(bad):
        value = logits[bad[0]].max()
        raise NotFiniteError(
            f"{name} gives no numbers: the largest logit at token {first + int(bad[0])} is {value}, "
            f"in the text {context[-200:]!r}"
        )


def find_loop(token_ids: Sequence[int]) -> int | None:
    """Length of the unit that an answer repeats at its end; None when it does not.

    A loop is a unit of up to 32 tokens that comes at least 3 times in a row, over at least 32
    tokens, up to the answer's end (the last time may be cut). Answers that ended by themselves are
    no loops: ask only for those that were cut off by their length.
    """
    for unit in range(1, _LONGEST_UNIT + 1):
        same = 0
        while same + unit < len(token_ids) and token_ids[-1 - same] == token_ids[-1 - same - unit]:
            same += 1
        if same + unit >= max(_LEAST_TOKENS, _LEAST_REPEATS * unit):
            return unit
    return None


def too_many_loops(share: LoopShare) -> bool:
    """Whether a model degenerates.

    More than a quarter of its answers loop where the original's do not, or, without an original,
    more than half loop. Small models do that now and then when they are greedy.
    """
    if share.new_loops is not None:
        return share.new_loops > _NEW_LOOPS * share.prompts
    return share.loops > _LOOPS * share.prompts
