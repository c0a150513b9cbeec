"""What `ovfast quantize --recipe ptq-int8` takes and prints beside what all recipes do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ovfast.quantize.ptq_options import DEVICES, PRESETS

if TYPE_CHECKING:
    from ovfast.quantize.measure import Comparison

__all__ = ["PTQ_NAMES", "format_comparison", "ptq_options"]

PTQ_NAMES = (
    *("preset", "model_type", "target_device", "smooth_quant", "fast_bias_correction"),
    *("validation", "metric", "max_drop", "drop_type", "compare"),
    *("image_mean", "image_scale", "image_size", "image_bgr", "image_layout"),
)
"""Options that only this recipe has."""


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers with commas, got '{value}'") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", value)
    if match is None:
        raise click.BadParameter(f"expected HEIGHTxWIDTH, such as 224x224, got '{value}'")
    return int(match[1]), int(match[2])


_OPTIONS = (
    click.option("--preset", type=click.Choice(PRESETS), help="[ptq] How activations are rounded."),
    click.option(
        "--model-type",
        type=click.Choice(["transformer", "other"]),
        help="[ptq] Transformers have patterns of their own.",
    ),
    click.option(
        "--target-device", type=click.Choice(list(DEVICES)), help="[ptq] What it is to run on; any."
    ),
    click.option(
        "--smooth-quant",
        type=float,
        metavar="ALPHA",
        help="[ptq] 0 to 1: large activations into the weights; -1: not.",
    ),
    click.option(
        "--fast-bias-correction/--no-fast-bias-correction",
        default=None,
        help="[ptq] Not: slower, as a rule more exact.",
    ),
    click.option(
        "--validation",
        metavar="DATA",
        help="[ptq] Labelled .npz, or module:function that yields data for the metric.",
    ),
    click.option(
        "--metric",
        metavar="NAME",
        help="[ptq] top1, or module:function(compiled_model, data) -> number; more is better.",
    ),
    click.option(
        "--max-drop", type=float, metavar="X", help="[ptq] How much of the metric may be lost."
    ),
    click.option(
        "--drop-type", type=click.Choice(["absolute", "relative"]), help="[ptq] absolute."
    ),
    click.option(
        "--image-mean",
        metavar="M[,M,M]",
        callback=_numbers,
        help="[ptq] Subtracted from pixels, where the model does not.",
    ),
    click.option(
        "--image-scale", metavar="S[,S,S]", callback=_numbers, help="[ptq] Divides them then."
    ),
    click.option(
        "--image-size", metavar="HxW", callback=_size, help="[ptq] For models of any size."
    ),
    click.option("--image-bgr", is_flag=True, default=None, help="[ptq] Blue comes first."),
    click.option("--image-layout", metavar="NCHW", help="[ptq] The model's dimensions."),
    click.option(
        "--compare/--no-compare",
        default=None,
        help="[ptq] Measure the result beside its source (it does).",
    ),
)


def ptq_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def format_comparison(comparison: Comparison) -> str:
    """Return a table: size, time, and the metric before and after."""
    first = comparison.runs[0]
    rows = [("", "floats", "size", "time", "speed", comparison.metric or "")]
    for run in comparison.runs:
        rows.append(
            (
                run.name,
                run.precision,
                f"{run.bytes / 1e6:.2f} MB",
                f"{run.milliseconds:.3g} ms",
                f"{first.milliseconds / run.milliseconds:.2f}x",
                "" if run.metric is None else f"{run.metric:.4f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.append(
        f"Time: median of {comparison.repetitions} inferences each, in turn. Outputs differ by "
        f"{comparison.error:.1%} (root mean square)."
    )
    return "\n".join(lines)
