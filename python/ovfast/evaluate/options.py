"""What an evaluation does, judged before any model is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ovfast.engine_options import integer
from ovfast.errors import Error

__all__ = ["PARTS", "Options", "Thresholds", "require"]

PARTS = ("generations", "layers", "speed")
"""What an evaluation may leave out; it always measures on text."""


@dataclass(frozen=True)
class Thresholds:
    """What a model must reach against its original; None asks for nothing."""

    max_kl: float | None = None
    """Mean KL divergence over positions, nats, at most."""
    min_agreement: float | None = None
    """Share of positions with the same best token, 0 to 1, at least."""
    max_perplexity_ratio: float | None = None
    """Perplexity by that of the original, at most."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{one.name}: expected float or None, got {type(value).__name__}")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{one.name} is {value}, expected a number of at least 0")
        if self.min_agreement is not None and self.min_agreement > 1:
            raise ValueError(
                f"min_agreement is {self.min_agreement}, expected a share between 0 and 1"
            )

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())


@dataclass(frozen=True)
class Options:
    """The arguments of `ovfast.evaluate`, which describes them."""

    text: str | Path | None = None
    positions: int = 2000
    context: int = 256
    stride: int = 128
    exact: bool = False
    prompts: str | Path | None = None
    max_new_tokens: int = 48
    raw: bool = False
    answers: str | Path | None = None
    harness: Sequence[str] = ()
    harness_path: str | Path | None = None
    harness_limit: int | None = None
    without: Sequence[str] = ()
    allow_degenerate: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("positions", 1),
            ("context", 2),
            ("stride", 1),
            ("max_new_tokens", 1),
            ("harness_limit", 1),
        ):
            value = getattr(self, name)
            if value is None and name == "harness_limit":
                continue
            if integer(name, value, "int") < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        if self.stride >= self.context:
            raise ValueError(
                f"stride is {self.stride} and context {self.context}: windows must overlap, so the "
                "stride must be less than the context"
            )
        for part in self.without:
            if part not in PARTS:
                raise ValueError(f"without: expected some of {', '.join(PARTS)}; got {part!r}")
        for name in ("text", "prompts", "answers", "harness_path"):
            value = getattr(self, name)
            if value is not None and not Path(value).exists():
                raise ValueError(f"{name}: '{value}' does not exist")
        if isinstance(self.harness, str):
            raise TypeError("harness: expected a list of task names, got str")
        if self.harness_path is not None and not self.harness:
            raise ValueError("harness_path is given, but no task: name one with harness")
        if self.harness_limit is not None and not self.harness:
            raise ValueError("harness_limit is given, but no task: name one with harness")
        if self.prompts is not None and "generations" in self.without:
            raise ValueError("prompts are given, but without holds generations, which they are for")
        if self.harness:
            require("lm_eval", "harness")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = asdict(self)
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in values.items()
        }


def require(package: str, extra: str) -> None:
    """Raise Error, with the command that mends it, unless `package` of an extra is installed."""
    if find_spec(package) is None:
        raise Error(f"the package {package} is missing: pip install 'ovfast[{extra}]'")
