"""`ovfast export`: a model file or directory -> a model directory."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import click

__all__ = ["export_command"]

_EPILOG = """\b
Examples:
  ovfast export model.gguf -o model-dir
  ovfast export optimum-dir -o model-dir
  ovfast export model.gguf -o model-dir --no-pack   # for OpenVINO GenAI too
  ovfast export model-dir -o model-dir       # only checked
  ovfast export model.gguf -o model-dir --force --json
"""


@click.command("export", epilog=_EPILOG)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out_dir",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The model directory to write.",
)
@click.option("--force", is_flag=True, help="Replace DIR if it holds another model.")
@click.option(
    "--no-pack",
    is_flag=True,
    help="Keep OpenVINO's own operations, which OpenVINO GenAI can run too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def export_command(
    source: Path, out_dir: Path, force: bool, no_pack: bool, as_json: bool, no_progress: bool
) -> None:
    """Make a model directory of SOURCE.

    SOURCE is a GGUF file, or a directory that Optimum Intel wrote. The weights are packed for
    ovfast's operations. The model appears whole or not at all; when DIR holds this very model
    already, nothing is done.
    """
    from ovfast.export import export

    result = export(source, out_dir, progress=not no_progress, force=force, packed=not no_pack)
    if as_json:
        fields = dataclasses.asdict(result)
        click.echo(json.dumps({**fields, "model_dir": str(out_dir), "source": str(source)}))
        return
    size = f"{result.weights_bytes / 1e6:.0f} MB"
    if result.reused:
        click.echo(f"{out_dir} holds this model already ({size}), whole and checked.")
    else:
        click.echo(f"{out_dir}: {size} in {result.seconds:.1f} s.")
    for note in result.notes:
        click.echo(f"Note: {note}.")
    click.echo(f'Try: ovfast run {shlex.quote(str(out_dir))} "..."')
