"""The plots of the report, as SVG text that goes into the page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ovfast.evaluate.generations import Generations
from ovfast.evaluate.layers import LayerReport
from ovfast.evaluate.text import TextQuality

__all__ = ["plot_context", "plot_divergence", "plot_first_divergent", "plot_layers"]

_BLUE, _GREY, _ORANGE = "#1f6fb2", "#8a8f98", "#d9822b"
_SHOWN_LAYERS = 25
_SMALLEST_KL, _LARGEST_KL = 1e-9, 1e9


def plot_divergence(text: TextQuality) -> str:
    """Draw how many positions have a divergence of no more than that."""
    assert text.kl is not None
    values = np.sort(_drawable(text.kl))

    def draw(axes: Any) -> None:
        axes.plot(values, np.arange(1, len(values) + 1) / len(values), color=_BLUE)
        for value, name in ((text.kl_mean, "mean"), (text.kl_p99, "99 %")):
            at = float(_drawable(value))
            axes.axvline(at, color=_ORANGE, linewidth=1)
            axes.annotate(
                f"{name} {value:.2g}",
                (at, 0.02 if name == "mean" else 0.12),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=8,
                color=_ORANGE,
            )
        axes.set_xscale("log")
        axes.set_ylim(0, 1.01)
        axes.set_xlabel("KL divergence of a position, nats")
        axes.set_ylabel("share of positions below")

    return _svg(draw, 6.0, 3.2)


def plot_context(text: TextQuality) -> str:
    """Draw divergence and agreement by the number of tokens that a prediction was made from."""

    def draw(axes: Any) -> None:
        bins = text.by_context
        names = [f"{one.context_from}–{one.context_to}" for one in bins]
        at = np.arange(len(bins))
        axes.bar(at, _drawable([one.kl for one in bins]), color=_BLUE, width=0.6)
        axes.set_xticks(at, names, fontsize=8)
        axes.set_xlabel("tokens before the position")
        axes.set_ylabel("mean KL divergence, nats", color=_BLUE)
        other = axes.twinx()
        shares = [100 * (one.top1_agreement or 0.0) for one in bins]
        other.plot(at, shares, color=_ORANGE, marker="o", markersize=4)
        other.set_ylabel("same best token, %", color=_ORANGE)
        other.set_ylim(min(90.0, min(shares) - 2), 100.5)

    return _svg(draw, 6.0, 3.2)


def plot_layers(report: LayerReport) -> str:
    """Draw the layers with the largest errors, the worst on top."""
    layers = report.layers[:_SHOWN_LAYERS]

    def draw(axes: Any) -> None:
        at = np.arange(len(layers))
        axes.barh(at, [one.relative_error for one in layers], color=_BLUE, height=0.7)
        axes.set_yticks(at, [f"{one.name}  {one.operation}" for one in layers], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel("relative error of the output")

    return _svg(draw, 8.5, 0.9 + 0.2 * len(layers))


def plot_first_divergent(generations: Generations) -> str:
    """Draw how far each answer is the original's."""

    def draw(axes: Any) -> None:
        answers = generations.answers
        lengths = [one.reference_tokens or 0 for one in answers]
        firsts = [
            length if one.first_divergent_token is None else one.first_divergent_token
            for one, length in zip(answers, lengths, strict=True)
        ]
        at = np.arange(len(answers))
        axes.barh(at, lengths, color=_GREY, alpha=0.35, height=0.7, label="the original's answer")
        axes.barh(at, firsts, color=_BLUE, height=0.7, label="before the first divergent token")
        axes.set_yticks(at, [_plain(one.prompt) for one in answers], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel("tokens")
        axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    return _svg(draw, 8.5, 0.9 + 0.22 * len(generations.answers))


def _drawable(kl: Any) -> Any:
    """What a logarithmic axis can show: neither 0 nor infinity."""
    return np.clip(kl, _SMALLEST_KL, _LARGEST_KL)


def _plain(prompt: str) -> str:
    """One short line that is no formula, which dollar signs would make it."""
    line = " ".join(prompt.split())
    shown = line if len(line) <= 60 else f"{line[:59]}…"
    return shown.replace("$", r"\$")


def _svg(draw: Callable[[Any], None], width: float, height: float) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text stays text: the page's reader has the fonts, for every language, and can select it.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "ovfast", "font.size": 9}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="both", alpha=0.2)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
