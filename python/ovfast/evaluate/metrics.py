"""How far a model's predictions are from text, and from those of another model.

Everything is computed in f64: the divergences of interest are near the rounding of f32 sums of
150,000 terms. Logits are [positions, vocabulary]; large ones are worked through in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Divergence",
    "divergent_tokens",
    "kl_divergence",
    "log_softmax",
    "perplexity",
    "similarity",
    "token_losses",
    "top1_agreement",
]

Doubles = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

_BLOCK_BYTES = 8 << 20


def log_softmax(logits: Array) -> Doubles:
    """Log-probabilities, f64 [positions, vocabulary], in nats."""
    shifted = logits.astype(np.float64)
    shifted -= logits.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
    return shifted


def kl_divergence(reference_logits: Array, logits: Array) -> Doubles:
    """KL(reference || model) of each position: f64 [positions], in nats, NaN where logits are.

    The sum over the vocabulary of p log(p / q), where p is the reference's probability and q the
    model's. Raises ValueError when the shapes differ.
    """

    def block(ours: Array, theirs: Array) -> Doubles:
        log_p, log_ratio = log_softmax(theirs), log_softmax(ours)
        with np.errstate(invalid="ignore"):
            np.subtract(log_p, log_ratio, out=log_ratio)
            p = np.exp(log_p, out=log_p)
            sums = np.einsum("ij,ij->i", p, log_ratio)
        for row in np.flatnonzero(np.isnan(sums)):
            # A token that neither model can choose has 0 * (-inf + inf), and adds nothing.
            possible = (p[row] != 0) | np.isnan(ours[row])
            sums[row] = p[row][possible] @ log_ratio[row][possible]
        # Never below 0 but for rounding.
        return np.asarray(np.maximum(sums, 0))

    return _by_blocks(block, np.float64, logits, reference_logits)


def top1_agreement(reference_logits: Array, logits: Array) -> npt.NDArray[np.bool_]:
    """Whether both have the same best token (the lowest id among equals): bool [positions].

    The share of positions is the mean. Raises ValueError when the shapes differ.
    """
    _check_shapes(reference_logits, logits)
    return np.asarray(reference_logits.argmax(1) == logits.argmax(1))


def token_losses(logits: Array, tokens: Sequence[int] | npt.NDArray[np.int64]) -> Doubles:
    """-log p(tokens[i]) by logits[i], nats: f64 [positions].

    `tokens[i]` is the token that follows position i. Raises ValueError when the lengths differ.
    """
    following = np.asarray(tokens)
    if following.shape != logits.shape[:1]:
        raise ValueError(
            f"expected a token for each of {len(logits)} positions, got {following.shape}"
        )

    def block(rows: Array, at: Array) -> Doubles:
        # max + log(sum(exp(x - max))) - x[token], without a whole row of log-probabilities
        chosen = np.take_along_axis(rows, at[:, None], 1)[:, 0].astype(np.float64)
        most = rows.max(1).astype(np.float64)
        total = np.exp(rows - most[:, None]).sum(1)
        return np.asarray(most + np.log(total) - chosen)

    return _by_blocks(block, np.float64, logits, following)


def perplexity(losses: Doubles) -> float:
    """exp of the mean of `token_losses`. Raises ValueError when there are none."""
    if not len(losses):
        raise ValueError("a perplexity needs at least one token that was predicted")
    with np.errstate(over="ignore"):
        return float(np.exp(np.mean(losses)))


@dataclass(frozen=True)
class Divergence:
    """Where a model leaves the answer of another (Divergent Token Metrics, arXiv 2311.01544)."""

    tokens: int
    """Of the original's answer."""
    first: int | None
    """FDT: how many tokens come before the first divergent one; None if there is none."""
    divergent: int
    """Tokens that the model would have chosen otherwise."""

    @property
    def share(self) -> float:
        """SDT: divergent tokens by tokens."""
        return self.divergent / self.tokens


def divergent_tokens(reference_tokens: Sequence[int], best_tokens: Sequence[int]) -> Divergence:
    """Compare an answer with what another model would have said at each of its tokens.

    Args:
        reference_tokens: The greedy answer of the original.
        best_tokens: For each of them, the token that the model has for the best after the prompt
            and the tokens of the original's answer before it. Up to the first difference that is
            the model's own greedy answer too.

    Raises ValueError for an empty answer and for lengths that differ.
    """
    if not reference_tokens or len(reference_tokens) != len(best_tokens):
        raise ValueError(
            f"expected two answers of the same length, at least 1; got {len(reference_tokens)} and "
            f"{len(best_tokens)} tokens"
        )
    differs = [theirs != ours for theirs, ours in zip(reference_tokens, best_tokens, strict=True)]
    return Divergence(
        tokens=len(differs),
        first=differs.index(True) if any(differs) else None,
        divergent=sum(differs),
    )


def similarity(reference_tokens: Sequence[int], tokens: Sequence[int]) -> float:
    """How much two answers have in common, 0 to 1; order matters.

    Twice the tokens in matching runs, by the tokens of both (the ratio of
    `difflib.SequenceMatcher`, after Ratcliff and Obershelp). Tokens rather than words, so that it
    means the same in languages that put no spaces. Two empty answers are the same.
    """
    return SequenceMatcher(None, list(reference_tokens), list(tokens), autojunk=False).ratio()


def _by_blocks(function: Callable[..., Array], dtype: Any, logits: Array, other: Array) -> Array:
    if other.ndim > 1:
        _check_shapes(other, logits)
    rows = max(1, _BLOCK_BYTES // (8 * logits.shape[1]))
    result = np.empty(len(logits), dtype)
    for first in range(0, len(logits), rows):
        part = slice(first, first + rows)
        result[part] = function(logits[part], other[part])
    return result


def _check_shapes(reference_logits: Array, logits: Array) -> None:
    if reference_logits.shape != logits.shape or logits.ndim != 2:
        raise ValueError(
            "expected logits of two models as [positions, vocabulary] of the same shape, got "
            f"{list(reference_logits.shape)} and {list(logits.shape)}"
        )
