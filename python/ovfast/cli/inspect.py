"""`ovfast inspect`: what became of a model's layers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ovfast.cli.key import KeySource, key_options
from ovfast.cli.tune import describe_choices, explain_choices

if TYPE_CHECKING:
    from ovfast import _core

__all__ = ["inspect_command"]

_HEAD = ("layer", "operation", "format", "MB")


@click.command("inspect")
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--profile", "with_profile", is_flag=True, help="Run the model, show where its time goes."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
@key_options()
def inspect_command(
    model_dir: Path, with_profile: bool, as_json: bool, no_progress: bool, key: KeySource
) -> None:
    """Show the layers of the model directory DIR: operation, weight format and size.

    Layers that were left as they are come with the reason. All of a packed directory is read and
    checked. A stock directory that was never packed is packed in memory to find out; nothing is
    written.

    With --profile the model is loaded, and then packed as for every run. Its operations run one by
    one, which takes a little longer than usual, and their times are set against the rate at which
    this machine reads memory.

    \b
    Examples:
      ovfast inspect model-dir
      ovfast inspect model-dir --profile
      ovfast inspect model-dir --json
    """
    from ovfast import _core
    from ovfast.model_dir import ModelDir
    from ovfast.profile import format_profile, profile_dict, profile_model
    from ovfast.progress import Bar
    from ovfast.tuning import read_tuning

    opened = key.get()
    model = ModelDir.check(model_dir, opened)
    tuning = read_tuning(model)
    with Bar(model_dir.resolve().name, not no_progress) as bar:
        report = _core.inspect_packing(model.files, bar.show)
    profile = (
        profile_model(model_dir, progress=not no_progress, key=opened) if with_profile else None
    )
    if as_json:
        result = {**_as_dict(report), "tuning": tuning}
        if profile is not None:
            result["profile"] = profile_dict(profile)
        click.echo(json.dumps(result))
        return
    rows = [_HEAD, *(_row(layer) for layer in report.layers if layer.operation)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        *texts, size = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo("  ".join([*texts, size.strip().rjust(widths[-1])]))
    left = [layer for layer in report.layers if not layer.operation]
    if left:
        click.echo(f"\nLeft as they are: {len(left)}")
        for layer in left:
            click.echo(f"  {layer.name} ({layer.source_bytes / 1e6:.1f} MB): {layer.reason}")
    where = str(report.directory) if report.directory != Path() else "not written"
    click.echo(
        f"\n{report.source_bytes / 1e6:.0f} MB of constants, packed {report.packed_bytes / 1e6:.0f}"
        f" MB ({where})"
    )
    for note in report.notes:
        click.echo(f"Note: {note}.")
    if tuning is None:
        click.echo(f"Not tuned: ovfast tune {shlex.quote(str(model_dir))}")
    else:
        click.echo(f"Tuned at {tuning['made']}: {describe_choices(tuning)}.")
        for line in explain_choices(tuning):
            click.echo(f"  {line}")
    if profile is not None:
        click.echo(f"\n{format_profile(profile)}")


def _row(layer: _core.PackedLayer) -> tuple[str, str, str, str]:
    return layer.name, layer.operation, _shortened(layer.format), f"{layer.packed_bytes / 1e6:.1f}"


def _shortened(formats: str) -> str:
    """Say a format once that several weights of a layer share."""
    return ", ".join(dict.fromkeys(formats.split(", ")))


def _as_dict(report: _core.PackReport) -> dict[str, object]:
    return {
        "packed": report.packed,
        "directory": str(report.directory) if report.directory != Path() else None,
        "source_bytes": report.source_bytes,
        "packed_bytes": report.packed_bytes,
        "layers": [
            {
                "name": layer.name,
                "operation": layer.operation or None,
                "reason": layer.reason or None,
                "formats": layer.format.split(", ") if layer.format else [],
                "source_bytes": layer.source_bytes,
                "packed_bytes": layer.packed_bytes,
            }
            for layer in report.layers
        ],
        "notes": report.notes,
    }
