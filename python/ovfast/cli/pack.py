"""`ovfast pack`: a model directory -> one whose weights lie as the kernels read them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ovfast import _core

__all__ = ["pack_command"]

_EPILOG = """\b
Examples:
  ovfast pack model-dir                  # into model-dir/.ovfast, where loading finds it
  ovfast pack model-dir -o packed-dir    # a directory of its own
  ovfast pack model-dir --force --json
"""


@click.command("pack", epilog=_EPILOG)
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out_dir",
    type=click.Path(path_type=Path),
    metavar="DIR2",
    help="Write a packed model directory, with tokenizer and configuration.",
)
@click.option(
    "--force", is_flag=True, help="Pack again, or replace DIR2 if it holds another model."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def pack_command(
    model_dir: Path, out_dir: Path | None, force: bool, as_json: bool, no_progress: bool
) -> None:
    """Pack the weights of the model directory DIR.

    This happens by itself when a directory is first loaded. Without -o, the packed weights go where
    loading looks for them: into DIR/.ovfast, or into the cache when DIR cannot be written to.
    """
    from ovfast import _core
    from ovfast.model_dir import ModelDir
    from ovfast.progress import Bar

    start = time.perf_counter()
    if ModelDir.check(model_dir).packed and out_dir is None:
        report = _core.inspect_packing(model_dir)
    elif out_dir is None:
        with Bar(model_dir.resolve().name, not no_progress) as bar:
            report = _core.pack_for_loading(model_dir, bar.show, again=force)
    else:
        from ovfast.export.directory import export_directory

        result = export_directory(model_dir, out_dir, progress=not no_progress, force=force)
        report = _core.inspect_packing(out_dir)
        _print(report, result.reused, time.perf_counter() - start, as_json)
        return
    reused = report.reused or report.directory == model_dir
    _print(report, reused, time.perf_counter() - start, as_json)


def _print(report: _core.PackReport, reused: bool, seconds: float, as_json: bool) -> None:
    if as_json:
        fields = {
            "packed": report.packed,
            "directory": str(report.directory) if report.packed else None,
            "reused": reused,
            "seconds": seconds,
            "source_bytes": report.source_bytes,
            "packed_bytes": report.packed_bytes,
            "unpacked_layers": sum(not layer.operation for layer in report.layers),
            "notes": report.notes,
        }
        click.echo(json.dumps(fields))
        return
    size = f"{report.packed_bytes / 1e6:.0f} MB"
    if not report.packed:
        click.echo("Nothing to pack: no layer has weights of a form that packs.")
    elif reused:
        click.echo(f"{report.directory} holds this model packed already ({size}).")
    else:
        click.echo(f"{report.directory}: {size} in {seconds:.1f} s.")
    for note in report.notes:
        click.echo(f"Note: {note}.")
