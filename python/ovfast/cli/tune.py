"""`ovfast tune`: the fastest options for a model on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from ovfast.cli.key import KeySource, key_options

__all__ = ["describe_choices", "explain_choices", "tune_command"]

_NAMES = {
    "num_threads": "threads",
    "attention": "attention",
    "inference_precision": "precision",
    "max_batch_tokens": "batch tokens",
    "tile_kb": "weight tiles, KiB",
    "tile_columns": "prompt tiles, columns",
    "activation_precision": "activations",
}
_EPILOG = """\b
Examples:
  ovfast tune model-dir
  ovfast tune model-dir --force      # measure again, say on a quiet machine
  ovfast tune model-dir --allow-activation-group 128
  ovfast tune model-dir --json
  ovfast inspect model-dir           # also shows what was chosen
"""


@click.command("tune", epilog=_EPILOG)
@click.argument("model", metavar="MODEL")
@click.option(
    "--allow-activation-group",
    type=click.Choice(["32", "128"]),
    default="32",
    help="128: also try one scale for 128 activations, which costs quality.",
)
@click.option("--force", is_flag=True, help="Measure again what was measured before.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
@key_options()
def tune_command(
    model: str,
    allow_activation_group: str,
    force: bool,
    as_json: bool,
    no_progress: bool,
    key: KeySource,
) -> None:
    """Find the options that run MODEL, a model directory or a GGUF file, fastest here.

    Threads, attention, precision, the tiles of the kernels and the size of prefill chunks are chosen
    one after the other.
    Candidates are measured in turns, at least 3 rounds each: the time per output token (TPOT) after
    a short prompt, and the prefill of a prompt of 512 tokens (1024 for the chunks). The best has the
    least score, TPOT x 128 + prefill, in medians; the default stays unless what is saved exceeds
    the noise, how far the rounds differ in that, and at least 2 %; and does so a second time.

    The choice is stored in the cache, for this processor, these versions and this model. Loading
    applies it to options that are not given. Without it the defaults hold, which do well.
    """
    from ovfast.tune import tune

    result = tune(
        model,
        allow_activation_group=int(allow_activation_group),
        force=force,
        progress=not no_progress,
        key=key.get(),
    )
    if as_json:
        click.echo(json.dumps({**result.tuning, "file": str(result.path), "reused": result.reused}))
        return
    for stage in result.tuning["stages"]:
        _print(stage)
    click.echo(f"Chosen: {describe_choices(result.tuning)}.")
    if result.reused:
        click.echo(f"Measured at {result.tuning['made']}; --force measures again.")
    else:
        click.echo(f"{result.tuning['seconds']:.1f} s, stored in {result.path}.")


def describe_choices(tuning: dict[str, Any]) -> str:
    """Say in a line what differs from the defaults, and what it saves."""
    return (
        ", ".join(
            f"{_NAMES[stage['option']]} {stage['chosen']} (saves {stage['gain']:.0%})"
            for stage in tuning["stages"]
            if stage["option"] in tuning["options"]
        )
        or "the defaults"
    )


def explain_choices(tuning: dict[str, Any]) -> list[str]:
    """Say for each option what holds and why, a line each."""
    return [
        f"{_NAMES[stage['option']]} {_shown(stage['chosen'])}: {stage['why']}"
        for stage in tuning["stages"]
    ]


def _shown(value: Any) -> str:
    return "default" if value is None else str(value)


def _print(stage: dict[str, Any]) -> None:
    name = _NAMES[stage["option"]]
    if not stage["candidates"]:
        click.echo(f"{name}: {stage['why']}\n")
        return
    click.echo(
        f"{name:<22}{'TPOT ms':>9}{stage['prompt_tokens']:>7} tokens ms{'score s':>10}{'saves':>8}{'noise':>8}"
    )
    for one in stage["candidates"]:
        mark = "*" if one["value"] == stage["chosen"] else " "
        label = f"{mark} {_shown(one['value'])}"
        if one["value"] == stage["default"] and one["value"] is not None:
            label += " (default)"
        click.echo(
            f"{label:<22}{one['tpot_seconds'] * 1e3:>9.2f}{one['prefill_seconds'] * 1e3:>17.1f}"
            f"{one['score_seconds']:>10.3f}{one['gain']:>8.1%}{one['noise']:>8.1%}"
        )
    click.echo(f"  {stage['why']}\n")
