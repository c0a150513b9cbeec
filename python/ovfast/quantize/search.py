"""Recipe after recipe until one passes: the smallest models first, since they are the fastest.

Decoding is bound by reading the weights once a token. So recipes are tried class by class, where a
class is what takes about the same number of bytes; of a class the cheap ones come first.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ovfast.errors import Error
from ovfast.export.target import written_directory
from ovfast.quantize import QuantizeResult, quantize

__all__ = [
    "CLASSES",
    "SearchResult",
    "Trial",
    "check_bounds",
    "format_trials",
    "parse_size",
    "search",
]

CLASSES = (
    ("int4-all",),
    ("int4-g128", "int4-asym-g128", "int4-asym-gptq"),
    ("int4-asym-g64", "int4-asym-g32"),
    ("int4-mixed", "int4-mixed-data"),
    ("int8-sym", "int8"),
)
"""Recipes that are tried, smaller models first."""

# Speeds that differ by less are those of the same model, measured twice.
_AS_FAST = 1.05
# Sizes within a class differ by less.
_AS_LARGE = 1.05
_TABLE, _PLOT = "search.json", "search.png"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Trial:
    """What became of one recipe."""

    recipe: str
    weights_bytes: int
    seconds: float
    """For the compression."""
    kl_mean: float | None
    """KL(source || result), nats; None when it was too large to be measured, or gives no numbers."""
    top1_agreement: float | None
    tokens_per_second: float | None
    passed: bool
    reason: str
    """Why it did not pass; empty otherwise."""


@dataclass(frozen=True)
class SearchResult:
    """What a search tried and kept."""

    result: QuantizeResult
    trials: list[Trial]


Measure = Callable[[Path, Path], tuple[float | None, float | None, float]]
"""(candidate, source) -> mean KL, top-1 agreement, tokens per second."""


def search(
    model_dir: str | Path,
    out_dir: str | Path,
    *,
    target_size: int | str | None = None,
    max_kl: float | None = None,
    positions: int = 500,
    packed: bool = True,
    force: bool = False,
    progress: bool = True,
    report: Callable[[Trial], object] = lambda trial: None,
    measure: Measure | None = None,
) -> SearchResult:
    """Try recipes and keep one.

    With `max_kl` classes are tried from the smallest on, and the fastest that passes in the first
    class with one is kept; of those within 5 % of each other the closest. With `target_size` alone
    they are tried from the largest on, and the one of least KL is kept in the first class that fits;
    what is left of a class is not tried when one of it was more than 5 % too large. Table and plot of
    what was tried are written into the result as search.json and search.png.

    Args:
        model_dir: As for `ovfast.quantize`.
        out_dir: As for `ovfast.quantize`.
        target_size: Largest openvino_model.bin: bytes, or text as "350MB" or "1.5GiB".
        max_kl: Largest mean KL divergence from the source, nats, as the model runs in use.
        positions: Tokens that KL is measured on.
        packed: As for `ovfast.quantize`.
        force: As for `ovfast.quantize`.
        progress: As for `ovfast.quantize`.
        report: Called with each trial.
        measure: What measures; `ovfast.evaluate` on text and in a fresh process if not given.

    Raises:
        ValueError: Neither or an impossible bound; else as `ovfast.quantize`.
        Error: No recipe passes (the message has the table); matplotlib is missing; else as
            `ovfast.quantize`.
    """
    limit = check_bounds(target_size, max_kl, positions)
    from ovfast.evaluate.options import require

    require("nncf", "quantize")
    require("matplotlib", "quantize")
    source, out_dir = Path(model_dir).expanduser(), Path(out_dir).expanduser()
    measure = measure or _Measurement(positions)
    classes = CLASSES if max_kl is not None else tuple(reversed(CLASSES))
    with written_directory(out_dir, force=force) as place:
        assert place is not None
        trials: list[Trial] = []
        kept: QuantizeResult | None = None
        for recipes in classes:
            best, kept, before = None, None, len(trials)
            for recipe in recipes:
                made = quantize(
                    source, place / recipe, recipe, packed=packed, force=force, progress=progress
                )
                trial = _judge(made, source, limit, max_kl, measure)
                trials.append(trial)
                report(trial)
                if trial.passed and (best is None or _better(trial, best, max_kl)):
                    best, kept = trial, made
                for path in place.iterdir():
                    if kept is None or path != kept.model_dir:
                        shutil.rmtree(path)
                if limit is not None and made.weights_bytes > _AS_LARGE * limit:
                    break  # the rest of the class is too large, too
            if kept is not None or _hopeless(trials[before:], limit, max_kl):
                break
        if kept is None:
            raise Error(f"no recipe passes:\n{format_trials(trials)}")
        for file in list(kept.model_dir.iterdir()):
            file.rename(place / file.name)
        kept.model_dir.rmdir()
        _write(place, trials, kept.recipe, limit, max_kl)
    return SearchResult(replace(kept, model_dir=out_dir), trials)


def check_bounds(
    target_size: int | str | None, max_kl: float | None, positions: int | None = None
) -> int | None:
    """Judge what a search is asked for; return the size in bytes. Raises ValueError."""
    limit = parse_size(target_size) if target_size is not None else None
    if limit is None and max_kl is None:
        raise ValueError("a search needs a bound: target_size, max_kl or both")
    if max_kl is not None and not 0 < max_kl < math.inf:
        raise ValueError(f"max_kl: expected a number above 0, got {max_kl!r}")
    if positions is not None and positions < 1:
        raise ValueError(f"positions: expected at least 1, got {positions!r}")
    return limit


def parse_size(size: int | str) -> int:
    """Bytes of a number, or of text with a unit. Raises ValueError."""
    text = str(size).strip().upper()
    number = text.rstrip("KMGIB ")
    unit = text[len(number) :].strip()
    try:
        size_bytes = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        size_bytes = 0
    if size_bytes < 1:
        raise ValueError(
            f"target_size: expected a size such as 350MB or 1.5GiB, above 0, got {size!r}"
        )
    return size_bytes


def format_trials(trials: Sequence[Trial]) -> str:
    """Return a table for people."""
    head = ("recipe", "MB", "KL", "top-1", "tokens/s", "s", "")
    rows = [
        (
            trial.recipe,
            f"{trial.weights_bytes / 1e6:.0f}",
            "-" if trial.kl_mean is None else f"{trial.kl_mean:.4f}",
            "-" if trial.top1_agreement is None else f"{trial.top1_agreement:.1%}",
            "-" if trial.tokens_per_second is None else f"{trial.tokens_per_second:.1f}",
            f"{trial.seconds:.0f}",
            trial.reason or "passes",
        )
        for trial in trials
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


class _Measurement:
    """`ovfast.evaluate` on text, and the speed of a fresh process."""

    def __init__(self, positions: int) -> None:
        self._positions = positions

    def __call__(self, candidate: Path, source: Path) -> tuple[float | None, float | None, float]:
        from ovfast.evaluate import evaluate
        from ovfast.evaluate.options import PARTS
        from ovfast.evaluate.worker import run_model

        quality = evaluate(
            candidate, source, positions=self._positions, without=PARTS, progress=False
        ).text
        run = run_model(candidate, [], max_new_tokens=1, speed=True)
        assert run.speed is not None
        speed = run.speed.tokens_per_second
        if quality is None:
            return None, None, speed
        return quality.kl_mean, quality.top1_agreement, speed


def _judge(
    made: QuantizeResult,
    source: Path,
    limit: int | None,
    max_kl: float | None,
    measure: Measure,
) -> Trial:
    trial = Trial(made.recipe, made.weights_bytes, made.seconds, None, None, None, True, "")
    if limit is not None and made.weights_bytes > limit:
        return replace(trial, passed=False, reason=f"larger than {limit / 1e6:.3g} MB")
    kl, agreement, speed = measure(made.model_dir, source)
    trial = replace(trial, kl_mean=kl, top1_agreement=agreement, tokens_per_second=speed)
    if kl is None:
        return replace(trial, passed=False, reason="gives no numbers")
    if max_kl is not None and kl > max_kl:
        return replace(trial, passed=False, reason=f"KL above {max_kl:g}")
    return trial


def _better(trial: Trial, best: Trial, max_kl: float | None) -> bool:
    """Whether a trial that passed is to be preferred to another one of its class."""
    # Both were measured, or they would not have passed.
    assert trial.kl_mean is not None
    assert best.kl_mean is not None
    assert trial.tokens_per_second is not None
    assert best.tokens_per_second is not None
    ratio = trial.tokens_per_second / best.tokens_per_second
    if max_kl is not None and not 1 / _AS_FAST < ratio < _AS_FAST:
        return ratio > 1
    return trial.kl_mean < best.kl_mean


def _hopeless(trials: Sequence[Trial], limit: int | None, max_kl: float | None) -> bool:
    """Whether a class was too large, and all that follow are larger."""
    return (
        max_kl is not None
        and limit is not None
        and all(trial.weights_bytes > limit for trial in trials)
    )


def _write(
    directory: Path, trials: Sequence[Trial], kept: str, limit: int | None, max_kl: float | None
) -> None:
    content: dict[str, Any] = {
        "kept": kept,
        "target_size": limit,
        "max_kl": max_kl,
        "trials": [asdict(trial) for trial in trials],
    }
    (directory / _TABLE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _plot(directory / _PLOT, trials, kept, limit, max_kl)


def _plot(
    path: Path, trials: Sequence[Trial], kept: str, limit: int | None, max_kl: float | None
) -> None:
    """Size against KL, with tokens per second at each point, and the bounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = [
        ((trial.weights_bytes / 1e6, trial.kl_mean), trial)
        for trial in trials
        if trial.kl_mean is not None
    ]
    places.sort(key=lambda item: item[0])
    for number, (place, trial) in enumerate(places):
        color = "tab:green" if trial.recipe == kept else "tab:blue" if trial.passed else "tab:gray"
        axes.plot(*place, "o", color=color)
        # Recipes of one class lie above each other: names on either side in turn.
        side, offset = ("left", 7) if number % 2 == 0 else ("right", -7)
        axes.annotate(
            f"{trial.recipe}, {trial.tokens_per_second:.0f} tokens/s",
            place,
            (offset, 0),
            textcoords="offset points",
            fontsize=8,
            ha=side,
            va="center",
        )
    if max_kl is not None:
        axes.axhline(max_kl, color="tab:red", linewidth=1, linestyle="--")
    if limit is not None:
        axes.axvline(limit / 1e6, color="tab:red", linewidth=1, linestyle="--")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.4, y=0.2)
    axes.set_xlabel("openvino_model.bin, MB")
    axes.set_ylabel("mean KL divergence from the source, nats")
    axes.set_title(f"Recipes that were measured; {kept} was kept", fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
