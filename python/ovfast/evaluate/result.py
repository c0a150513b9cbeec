"""What an evaluation found: one object, and its JSON."""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ovfast.evaluate.expected import Graded
from ovfast.evaluate.generations import Generations
from ovfast.evaluate.layers import LayerReport
from ovfast.evaluate.options import Options, Thresholds
from ovfast.evaluate.text import TextQuality
from ovfast.evaluate.worker import Speed

__all__ = ["FORMAT", "Evaluation"]

FORMAT = 1
"""Of the JSON; grows when keys change their meaning."""

_TOOLS = ("ovfast", "openvino", "openvino-tokenizers", "numpy")


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; what was left out, or not asked for, is None."""

    model: str
    """Name of the model's directory."""
    against: str | None
    """Name of the original's."""
    options: Options
    thresholds: Thresholds
    seconds: float
    text: TextQuality | None
    """None too when the model gives no numbers: see `failures`."""
    generations: Generations | None
    layers: LayerReport | None
    speed: Speed | None
    speed_reference: Speed | None
    answers: Graded | None
    harness: dict[str, dict[str, float]] | None
    """Task -> metric -> value."""
    harness_reference: dict[str, dict[str, float]] | None
    failures: list[str] = field(default_factory=list)
    """Missed thresholds, and in which way the output degenerates."""
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no threshold was missed and the output does not degenerate."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """As JSON's types; docs/evaluation.md lists the keys."""

        def plain(value: Any) -> Any:
            return None if value is None else asdict(value)

        values = {
            "format": FORMAT,
            "model": self.model,
            "against": self.against,
            "passed": self.passed,
            "failures": self.failures,
            "notes": self.notes,
            "text": None if self.text is None else self.text.as_dict(),
            "generations": plain(self.generations),
            "layers": plain(self.layers),
            "speed": plain(self.speed),
            "speed_reference": plain(self.speed_reference),
            "answers": plain(self.answers),
            "harness": self.harness,
            "harness_reference": self.harness_reference,
            "thresholds": asdict(self.thresholds),
            "options": self.options.as_dict(),
            "seconds": self.seconds,
            "tools": {tool: _version(tool) for tool in _TOOLS},
        }
        return {name: _without_infinity(value) for name, value in values.items()}


def _without_infinity(value: Any) -> Any:
    """None in the place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_infinity(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(one) for one in value]
    return value


def _version(tool: str) -> str:
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
