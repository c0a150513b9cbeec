"""The sampler, spelled out in NumPy: slow, plain, and the judge of the C++ one.

Draws are reproduced exactly: the random generator, the order of the tokens and the arithmetic are
those that cpp/engine/sampler.hpp documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Options:
    """Names and defaults of SamplingParams."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_new_tokens: int = 0
    seed: int = 0
    logprobs: int | None = None


def split_mix(state: int) -> int:
    """First output of SplitMix64 in this state."""
    z = (state + GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def descending(logits: Floats) -> npt.NDArray[np.int64]:
    """Ids by descending logit, among equals by ascending id."""
    return np.lexsort((np.arange(logits.size), -logits))


class ReferenceSampler:
    """One sequence, like ovfast._core.Sampler."""

    def __init__(
        self,
        options: Options,
        prompt_ids: Sequence[int] = (),
        banned_before_minimum: Sequence[int] = (),
        answer: int = 0,
    ) -> None:
        self.options = options
        self.prompt = set(prompt_ids)
        self.banned = list(banned_before_minimum)
        self.generated: list[int] = []
        self.state = split_mix((split_mix(options.seed) + answer) & MASK)

    def adjusted(self, logits: Floats) -> Floats:
        """Logits after penalties and bans."""
        o = self.options
        values = logits.astype(np.float64)
        counts = Counter(self.generated)
        for token in self.prompt | set(counts):
            if token >= values.size:
                continue
            if values[token] > 0:
                values[token] /= o.repetition_penalty
            else:
                values[token] *= o.repetition_penalty
        for token, count in counts.items():
            values[token] -= o.frequency_penalty * count
            values[token] -= o.presence_penalty
        if len(self.generated) < o.min_new_tokens:
            values[[token for token in self.banned if token < values.size]] = -np.inf
        return values.astype(np.float32)

    def distribution(self, logits: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ids that may be drawn, in the order of drawing, and their weights (not normalised)."""
        o = self.options
        values = self.adjusted(logits)
        wide = values.astype(np.float64)
        weights = np.exp((wide - wide.max()) / o.temperature)
        top_k = 0 < o.top_k < values.size
        if not top_k and o.top_p == 1.0 and o.min_p == 0.0:
            return np.arange(values.size), weights
        ids = descending(values)
        if top_k:
            ids = ids[: o.top_k]
        if o.top_p < 1.0:
            needed = o.top_p * weights[ids].sum()
            ids = ids[: int(np.argmax(np.cumsum(weights[ids]) >= needed)) + 1]
        ids = ids[weights[ids] >= o.min_p]
        return ids, weights[ids]

    def uniform(self) -> float:
        """The next random number in [0, 1)."""
        bits = split_mix(self.state)
        self.state = (self.state + GOLDEN) & MASK
        return (bits >> 11) * 2.0**-53

    def choose(self, logits: Floats) -> int:
        """The next token, not yet recorded."""
        if self.options.temperature == 0.0:
            return int(np.argmax(self.adjusted(logits)))
        ids, weights = self.distribution(logits)
        sums = np.cumsum(weights)
        return int(ids[np.argmax(sums > self.uniform() * sums[-1])])

    def sample(self, logits: Floats) -> tuple[int, tuple[float, list[tuple[int, float]]] | None]:
        """The next token, and (its log-probability, the most probable tokens with theirs)."""
        token = self.choose(logits)
        self.generated.append(token)
        if self.options.logprobs is None:
            return token, None
        wide = logits.astype(np.float64)
        relative = wide - wide.max()
        logprobs = relative - np.log(np.exp(relative).sum())
        top = descending(logits)[: self.options.logprobs]
        return token, (float(logprobs[token]), [(int(i), float(logprobs[i])) for i in top])
