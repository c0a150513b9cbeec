"""A model on text, alone or beside the one that it was made of: position by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ovfast.evaluate.degeneration import check_finite
from ovfast.evaluate.metrics import kl_divergence, perplexity, token_losses, top1_agreement
from ovfast.evaluate.windows import Window

if TYPE_CHECKING:
    from ovfast.evaluate.logits import PositionLogits

__all__ = ["Bin", "TextQuality", "measure_text", "side_by_side"]

_BINS = (1, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bin:
    """Positions with a like number of tokens before them."""

    context_from: int
    """Least number of tokens that the prediction was made from."""
    context_to: int
    """Largest number."""
    positions: int
    loss: float
    """Mean -log p of the tokens, nats."""
    kl: float | None
    top1_agreement: float | None


@dataclass(frozen=True)
class TextQuality:
    """Over all positions that count; what needs an original is None without one."""

    positions: int
    texts: int
    windows: int
    context: int
    stride: int
    perplexity: float
    perplexity_reference: float | None
    perplexity_ratio: float | None
    """perplexity / perplexity_reference."""
    kl_mean: float | None
    """KL(original || model), nats."""
    kl_median: float | None
    kl_p99: float | None
    kl_max: float | None
    top1_agreement: float | None
    """Share of positions with the same best token."""
    by_context: list[Bin]
    kl: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    """[positions]; not part of the JSON."""
    agrees: npt.NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    """[positions]; not part of the JSON."""

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON, without arrays."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        del values["kl"], values["agrees"]
        values["by_context"] = [vars(one) for one in self.by_context]
        return values


def side_by_side(
    model: PositionLogits, reference: PositionLogits | None, ids: Sequence[int]
) -> Iterator[tuple[int, Rows, Rows | None]]:
    """Yield (first position, logits of the model, of the original), a few rows of each at a time.

    Neither is ever held for all positions.
    """
    ours = model.chunks(ids)
    if reference is None:
        for first, rows in ours:
            yield first, rows, None
        return
    for (first, rows), (_, theirs) in zip(ours, reference.chunks(ids), strict=True):
        yield first, rows, theirs


def measure_text(
    model: PositionLogits,
    reference: PositionLogits | None,
    windows: Sequence[Window],
    *,
    context: int,
    stride: int,
    name: str,
    decode: Callable[[Sequence[int]], str],
    show: Callable[[float], None] = lambda _: None,
) -> TextQuality:
    """Run both through all windows and compare what counts.

    `name` is the model's and `decode` makes text of token ids, for messages; `show` gets the part
    that is done. Raises NotFiniteError when logits are no numbers.
    """
    losses, reference_losses, divergence, agreement, before = [], [], [], [], []
    for number, window in enumerate(windows):
        following = np.array(window.ids[1:])
        for first, ours, theirs in side_by_side(model, reference, window.ids):
            # The logits at a position predict the token after it; the last has none.
            begin = max(first, window.counted - 1)
            end = min(first + len(ours), len(following))
            if begin >= end:
                continue
            part = slice(begin - first, end - first)
            mine = ours[part]
            check_finite(mine, begin, name, decode(window.ids[: begin + 1]))
            tokens = following[begin:end]
            losses.append(token_losses(mine, tokens))
            before.append(np.arange(begin, end) + 1)
            if theirs is not None:
                other = theirs[part]
                check_finite(other, begin, "the original", decode(window.ids[: begin + 1]))
                reference_losses.append(token_losses(other, tokens))
                divergence.append(kl_divergence(other, mine))
                agreement.append(top1_agreement(other, mine))
        show((number + 1) / len(windows))
    loss = np.concatenate(losses)
    ours_perplexity = perplexity(loss)
    theirs_perplexity = perplexity(np.concatenate(reference_losses)) if reference_losses else None
    kl = np.concatenate(divergence) if divergence else None
    agrees = np.concatenate(agreement) if agreement else None
    return TextQuality(
        positions=len(loss),
        texts=len({window.text for window in windows}),
        windows=len(windows),
        context=context,
        stride=stride,
        perplexity=ours_perplexity,
        perplexity_reference=theirs_perplexity,
        perplexity_ratio=None if theirs_perplexity is None else ours_perplexity / theirs_perplexity,
        kl_mean=None if kl is None else float(kl.mean()),
        kl_median=None if kl is None else float(np.median(kl)),
        kl_p99=None if kl is None else float(np.percentile(kl, 99)),
        kl_max=None if kl is None else float(kl.max()),
        top1_agreement=None if agrees is None else float(agrees.mean()),
        by_context=_bins(np.concatenate(before), loss, kl, agrees),
        kl=kl,
        agrees=agrees,
    )


def _bins(
    before: npt.NDArray[Any],
    loss: npt.NDArray[np.float64],
    kl: npt.NDArray[np.float64] | None,
    agrees: npt.NDArray[np.bool_] | None,
) -> list[Bin]:
    made = []
    for low, high in zip(_BINS, (*_BINS[1:], np.iinfo(np.int64).max), strict=True):
        inside = (before >= low) & (before < high)
        if inside.any():
            made.append(
                Bin(
                    context_from=int(before[inside].min()),
                    context_to=int(before[inside].max()),
                    positions=int(inside.sum()),
                    loss=float(loss[inside].mean()),
                    kl=None if kl is None else float(kl[inside].mean()),
                    top1_agreement=None if agrees is None else float(agrees[inside].mean()),
                )
            )
    return made
