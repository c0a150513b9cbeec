"""`ovfast inspect`: what became of a model's layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ovfast import _core

__all__ = ["inspect_command"]

_HEAD = ("layer", "operation", "format", "MB")


@click.command("inspect")
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def inspect_command(model_dir: Path, as_json: bool, no_progress: bool) -> None:
    """Show the layers of the model directory DIR: operation, weight format and size.

    Layers that were left as they are come with the reason. All of a packed directory is read and
    checked. A stock directory that was never packed is packed in memory to find out; nothing is
    written.

    \b
    Examples:
      ovfast inspect model-dir
      ovfast inspect model-dir --json
    """
    from ovfast import _core
    from ovfast.model_dir import ModelDir
    from ovfast.progress import Bar

    ModelDir.check(model_dir)
    with Bar(model_dir.resolve().name, not no_progress) as bar:
        report = _core.inspect_packing(model_dir, bar.show)
    if as_json:
        click.echo(json.dumps(_as_dict(report)))
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
