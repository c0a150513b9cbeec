"""Windows: which tokens of texts a model sees together, and which of them count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovfast import _core

__all__ = ["Window", "make_windows"]


@dataclass(frozen=True)
class Window:
    """Tokens that are computed together, from an empty KV cache."""

    ids: list[int]
    counted: int
    """ids[counted:] are predicted and counted; what comes before is context. At least 1."""
    text: int
    """Number of the text that it was cut from."""


def make_windows(
    tokenizer: _core.Tokenizer,
    texts: Sequence[str],
    *,
    positions: int,
    context: int,
    stride: int,
) -> list[Window]:
    """Cut texts into windows in which together `positions` tokens count, or fewer if that is all.

    A window holds up to `context` tokens, those that the tokenizer puts before a text (BOS) among
    them; the next one of the same text begins `stride` later. A token counts in the first window
    that it is in, unless it is the first of the text there. So all but the first of a text have at
    least `context` - `stride` tokens before them, less those of BOS. First come the first windows
    of all texts, then their second ones, and so on.

    Raises ValueError when no text has two tokens.
    """
    cut: dict[int, list[Window]] = {}
    made: list[Window] = []
    missing = positions
    depth = 0
    while missing > 0:
        any_left = False
        for number, text in enumerate(texts):
            if number not in cut:
                cut[number] = list(_windows(tokenizer, text, number, context, stride))
            if depth >= len(cut[number]):
                continue
            any_left = True
            window = cut[number][depth]
            window = Window(window.ids[: window.counted + missing], window.counted, number)
            made.append(window)
            missing -= len(window.ids) - window.counted
            if missing <= 0:
                break
        if not any_left:
            break
        depth += 1
    if not made:
        raise ValueError("the texts are too short: expected one of at least two tokens")
    return made


def _windows(
    tokenizer: _core.Tokenizer, text: str, number: int, context: int, stride: int
) -> Iterator[Window]:
    body = tokenizer.encode(text, add_special_tokens=False)
    prefix = _prefix(tokenizer.encode(text), body)
    room = context - len(prefix)
    done = 1  # the first token of a text has nothing before it
    for begin in range(0, len(body), stride):
        ids = body[begin : begin + room]
        counted = max(done - begin, 1)
        if counted < len(ids):
            yield Window([*prefix, *ids], len(prefix) + counted, number)
        done = begin + len(ids)
        if done >= len(body):
            return


def _prefix(whole: list[int], body: list[int]) -> list[int]:
    for at in range(len(whole) - len(body) + 1):
        if whole[at : at + len(body)] == body:
            return whole[:at]
    return []
