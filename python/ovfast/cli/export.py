"""`ovfast export`: a model file or directory -> a model directory."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, cast

import click

from ovfast.cli.options import in_words_of_the_command_line

__all__ = ["export_command"]

_NAMES = ("weights", "group_size", "via", "task", "verify", "revision")

_EPILOG = """\b
Examples:
  ovfast export model.gguf -o model-dir
  ovfast export hugging-face-folder -o model-dir --weights int4 --group-size 64
  ovfast export hugging-face-folder -o model-dir --weights f16 --verify
  ovfast export whisper-folder -o whisper-dir --via optimum
  ovfast export organisation/name -o model-dir   # where a hub can be reached
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
@click.option(
    "--weights",
    type=click.Choice(["int4", "int4-asym", "int8", "int8-sym", "f16"]),
    help="How to store the weights of a Hugging Face folder; if not given int4 for text "
    "generation, f16 for all else.",
)
@click.option(
    "--group-size",
    type=int,
    metavar="N",
    help="Columns that share a scale of int4 weights; 128 if not given.",
)
@click.option(
    "--via",
    type=click.Choice(["auto", "direct", "optimum"]),
    default="auto",
    show_default=True,
    help="How to export a Hugging Face folder: layer by layer, by Optimum Intel in an environment "
    "of its own, or layer by layer where that is possible.",
)
@click.option(
    "--task",
    metavar="TASK",
    help="What a folder is for, in Optimum's words: text-generation, feature-extraction, "
    "automatic-speech-recognition, ... If not given, what its config.json says.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Run a folder's original in f32 and compare, where memory allows.",
)
@click.option(
    "--no-isolation",
    is_flag=True,
    help="Run Optimum Intel in this Python environment, which must have it.",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run Python code that comes with the model. It may do whatever you may.",
)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit of a model of a hub.")
@click.option("--verbose", is_flag=True, help="Show the output of pip and Optimum Intel.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def export_command(
    source: Path,
    out_dir: Path,
    force: bool,
    no_pack: bool,
    weights: str | None,
    group_size: int | None,
    via: str,
    task: str | None,
    verify: bool,
    no_isolation: bool,
    trust_remote_code: bool,
    revision: str | None,
    verbose: bool,
    as_json: bool,
    no_progress: bool,
) -> None:
    """Make a model directory of SOURCE.

    SOURCE is a GGUF file, a Hugging Face folder, the id of one on a hub, or a directory that Optimum
    Intel wrote. The weights are packed for ovfast's operations. The model appears whole or not at all;
    when DIR holds this very model already, nothing is done. A folder's export that was killed goes
    on where it was.
    """
    from ovfast.export import export

    try:
        result = export(
            source,
            out_dir,
            progress=not no_progress,
            force=force,
            packed=not no_pack,
            weights=weights,
            group_size=group_size,
            via=via,
            task=task,
            verify=verify,
            isolated=not no_isolation,
            trust_remote_code=trust_remote_code,
            revision=revision,
            verbose=verbose,
        )
    except ValueError as error:
        raise ValueError(in_words_of_the_command_line(str(error), _NAMES)) from error
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
    for name, measured in _verified(result.quality).items():
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in measured.items())
        click.echo(f"Verified against the original in f32: {name}: {numbers}.")
    if _runs(out_dir):
        click.echo(f'Try: ovfast run {shlex.quote(str(out_dir))} "..."')


def _verified(quality: dict[str, Any] | None) -> dict[str, dict[str, float]]:
    """Output -> figures; none when nothing was compared."""
    outputs = (quality or {}).get("verify", {}).get("outputs", {})
    return cast(dict[str, dict[str, float]], outputs)


def _runs(directory: Path) -> bool:
    """Whether `ovfast run` takes it: models for other tasks are exported, too."""
    from ovfast.errors import ModelError
    from ovfast.model_dir import ModelDir

    try:
        ModelDir.check(directory)
    except ModelError:
        return False
    return True
