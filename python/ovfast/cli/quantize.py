"""`ovfast quantize`: a model directory -> a smaller and faster one."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ovfast.cli.options import in_words_of_the_command_line
from ovfast.cli.quantize_ptq import PTQ_NAMES, format_comparison, ptq_options
from ovfast.quantize.options import BACKUPS, METRICS, MODES
from ovfast.quantize.recipes import DEFAULT, RECIPES

if TYPE_CHECKING:
    from ovfast.quantize import QuantizeResult
    from ovfast.quantize.recipes import Recipe

__all__ = ["quantize_command"]

_THRESHOLDS = ("max_kl", "min_agreement", "max_perplexity_ratio")
_NAMES = (
    *("mode", "group_size", "ratio", "backup", "all_layers", "sensitivity", "ignored", "awq"),
    *("scale_estimation", "gptq", "lora_correction", "lora_rank", "group_fallback", "data"),
    *("samples", "sample_tokens", "target_size", "positions", "recipe", "force", *_THRESHOLDS),
    *PTQ_NAMES,
)
_EPILOG = """\b
Examples:
  ovfast quantize model-dir -o model-int4
  ovfast quantize model-dir -o model-int4 --recipe int4-asym-data --data my-texts.jsonl
  ovfast quantize model-dir -o model-int4 --recipe int4-mixed --ratio 0.9 --group-size 64
  ovfast quantize model-dir -o model-int4 --prove --max-kl 0.1 --min-agreement 0.85
  ovfast quantize model-dir -o smaller --target-size 350MB
  ovfast quantize model-dir -o faster --max-kl 0.02
  ovfast quantize model.onnx -o model-int8 --recipe ptq-int8 --data inputs.npz
  ovfast quantize model.onnx -o model-int8 --recipe ptq-int8 --data images
      --image-mean 127.5 --image-scale 127.5 --validation labelled.npz --max-drop 0.01
  ovfast quantize --list-recipes
"""


def _list_recipes(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    width = max(map(len, RECIPES))
    for recipe in RECIPES.values():
        click.echo(f"{recipe.name:{width}}  {recipe.summary}")
    ctx.exit()


@click.command("quantize", epilog=_EPILOG)
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out_dir",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR2",
    help="The model directory to write; of models that are no language models also OUT.xml.",
)
@click.option("--recipe", metavar="NAME", help=f"What to do; {DEFAULT} if not given.")
@click.option(
    "--list-recipes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="Show the recipes, and exit.",
)
@click.option("--mode", type=click.Choice(list(MODES)), help="Format of the weights.")
@click.option("--group-size", type=int, metavar="N", help="Columns that share a scale; -1: all.")
@click.option(
    "--group-fallback",
    type=click.Choice(["adjust", "ignore", "error"]),
    help="Where the group does not divide the columns.",
)
@click.option("--ratio", type=float, metavar="R", help="Share of the weights in the mode.")
@click.option("--backup", type=click.Choice(list(BACKUPS)), help="Format of the rest.")
@click.option(
    "--all-layers/--no-all-layers", default=None, help="Embeddings and lm_head in the mode, too."
)
@click.option("--sensitivity", type=click.Choice(list(METRICS)), help="Ranks layers for --ratio.")
@click.option(
    "--ignored",
    multiple=True,
    metavar="REGEX",
    help="Leave layers of such names as they are; may be repeated.",
)
@click.option(
    "--awq", type=click.Choice(["data", "data-free"]), help="Scale columns, by texts or weights."
)
@click.option(
    "--scale-estimation/--no-scale-estimation", default=None, help="Scales of least error. [data]"
)
@click.option("--gptq/--no-gptq", default=None, help="Round column by column. [data]")
@click.option(
    "--lora-correction/--no-lora-correction", default=None, help="Add low-rank matrices. [data]"
)
@click.option("--lora-rank", type=int, metavar="N", help="Their rank.")
@click.option(
    "--data",
    metavar="PATH",
    help="Calibration texts: text file, folder or JSONL; if not given, texts of Python. [ptq] Also "
    ".npz, .npy, a folder of those or of images, module:function.",
)
@click.option(
    "--samples", type=int, metavar="N", help="Calibration texts used; 64. [ptq] Inputs; 300."
)
@click.option("--sample-tokens", type=int, metavar="N", help="Tokens of each; 64.")
@click.option(
    "--target-size",
    metavar="SIZE",
    help="Search: the best recipe whose weights are not larger, such as 350MB.",
)
@click.option(
    "--max-kl",
    type=float,
    metavar="NATS",
    help="Search: the fastest recipe that is this close. With --prove: a threshold.",
)
@ptq_options
@click.option("--positions", type=int, metavar="N", help="Tokens a search measures on; 500.")
@click.option("--prove", is_flag=True, help="Compare with DIR, write what was found down.")
@click.option("--min-agreement", type=float, help="With --prove: share of same best tokens.")
@click.option("--max-perplexity-ratio", type=float, help="With --prove: ratio of perplexities.")
@click.option(
    "--force", is_flag=True, help="Quantize a quantized model; replace another model in DIR2."
)
@click.option(
    "--no-pack",
    is_flag=True,
    help="Keep OpenVINO's own operations, which OpenVINO GenAI can run too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no table and no progress bars.")
def quantize_command(
    source: Path,
    out_dir: Path,
    recipe: str | None,
    target_size: str | None,
    positions: int | None,
    prove: bool,
    force: bool,
    no_pack: bool,
    as_json: bool,
    no_progress: bool,
    **given: Any,
) -> None:
    """Compress the weights of the model directory MODEL.

    With --recipe ptq-int8 activations are quantized, too, and MODEL may be any other model: a file
    or directory that `ovfast convert` reads or writes. Options marked [ptq] are for that.
    docs/ptq.md is its guide.

    A recipe is a set of options by name; options that are given replace its own. Best start from a
    directory with f16 weights: quantizing a model again, with --force, adds to its errors.

    With --target-size or --max-kl recipes are tried, and one is kept; search.json and search.png in
    DIR2 show what was tried. docs/quantization.md tells which recipe is good for what.
    """
    thresholds = {name: given.pop(name) for name in _THRESHOLDS}
    options = {name: value for name, value in given.items() if value is not None and value != ()}
    common: dict[str, Any] = {
        "packed": not no_pack,
        "force": force,
        "progress": not no_progress,
    }
    searching = target_size is not None or (thresholds["max_kl"] is not None and not prove)
    if searching:
        _check_search(recipe, options, thresholds, prove)
        more = {} if positions is None else {"positions": positions}
        _search(source, out_dir, target_size, thresholds["max_kl"], as_json, {**common, **more})
        return
    if positions is not None:
        raise click.UsageError("--positions is for searches: give --target-size or --max-kl")
    wanted = {name: value for name, value in thresholds.items() if value is not None}
    if wanted and not prove:
        flag = next(iter(wanted)).replace("_", "-")
        raise click.UsageError(f"--{flag} is a threshold of a proof: give --prove")
    from ovfast.evaluate.options import Thresholds
    from ovfast.quantize import quantize
    from ovfast.quantize.recipes import find_recipe

    try:
        chosen = find_recipe(recipe or DEFAULT)
        _check_options(chosen, options)
        proof = Thresholds(**wanted) if prove else None
    except ValueError as error:
        raise _usage(error) from error
    try:
        result = quantize(source, out_dir, chosen.name, **common, prove=proof, **options)
    except ValueError as error:  # what only the model shows
        raise ValueError(in_words_of_the_command_line(str(error), _NAMES)) from error
    if as_json:
        click.echo(json.dumps(_as_dict(result)))
    else:
        _print(result)


def _check_options(recipe: Recipe, options: dict[str, Any]) -> None:
    if recipe.kind == "ptq":
        from ovfast.quantize.ptq_options import ActivationOptions

        known = {field.name for field in dataclasses.fields(ActivationOptions)}
        strange = [name for name in options if name not in known]
        if not strange:
            ActivationOptions(**options)
    else:
        strange = [name for name in options if name in PTQ_NAMES]
        if not strange:
            recipe.with_options(options)
    if strange:
        flag = strange[0].replace("_", "-")
        raise click.UsageError(f"--{flag} is no option of the recipe {recipe.name}")


def _check_search(
    recipe: str | None, options: dict[str, Any], thresholds: dict[str, Any], prove: bool
) -> None:
    given = [*options, *(name for name in _THRESHOLDS[1:] if thresholds[name] is not None)]
    given += ["recipe"] if recipe is not None else []
    given += ["prove"] if prove else []
    if given:
        flag = given[0].replace("_", "-")
        raise click.UsageError(
            f"a search chooses recipe and options itself, by size and KL: --{flag} does not go "
            "with it"
        )


def _search(
    source: Path,
    out_dir: Path,
    target_size: str | None,
    max_kl: float | None,
    as_json: bool,
    common: dict[str, Any],
) -> None:
    from ovfast.quantize.search import Trial, check_bounds, format_trials, search

    try:
        check_bounds(target_size, max_kl, common.get("positions"))
    except ValueError as error:
        raise _usage(error) from error

    def tell(trial: Trial) -> None:
        kl = "" if trial.kl_mean is None else f", KL {trial.kl_mean:.4f}"
        size = f"{trial.weights_bytes / 1e6:.0f} MB"
        click.echo(f"{trial.recipe}: {size}{kl}: {trial.reason or 'passes'}", err=True)

    found = search(
        source,
        out_dir,
        target_size=target_size,
        max_kl=max_kl,
        report=tell if common["progress"] else lambda trial: None,
        **common,
    )
    if as_json:
        trials = [dataclasses.asdict(trial) for trial in found.trials]
        click.echo(json.dumps({**_as_dict(found.result), "trials": trials}))
        return
    click.echo(format_trials(found.trials) + "\n")
    _print(found.result)


def _as_dict(result: QuantizeResult) -> dict[str, Any]:
    fields = dataclasses.asdict(result)
    if (comparison := getattr(result, "comparison", None)) is not None:
        fields["comparison"]["speedup"] = comparison.speedup
    return {**fields, "model_dir": str(result.model_dir), "source": str(result.source)}


def _print(result: QuantizeResult) -> None:
    layers = ", ".join(f"{count} layers {name}" for name, count in result.layers.items())
    size = f"{result.weights_bytes / 1e6:.3g} MB"
    if result.reused:
        click.echo(f"{result.model_dir} holds this result already ({size}), whole and checked.")
    else:
        click.echo(
            f"{result.model_dir}: {size} of {result.source_bytes / 1e6:.3g} MB by {result.recipe} "
            f"in {result.seconds:.0f} s: {layers or 'no layers'}."
        )
    for note in result.notes:
        click.echo(f"Note: {note}.")
    if result.quality is not None:
        click.echo(
            f"Proof: KL {result.quality['kl_mean']:.4f}, top-1 agreement "
            f"{result.quality['top1_agreement']:.1%}, perplexity x "
            f"{result.quality['perplexity_ratio']:.3f}."
        )
    if hasattr(result, "comparison"):  # no language model
        if result.comparison is not None:
            click.echo(format_comparison(result.comparison))
        return
    name = shlex.quote(str(result.model_dir))
    click.echo(f'Try: ovfast run {name} "..."')


def _usage(error: ValueError) -> click.UsageError:
    return click.UsageError(in_words_of_the_command_line(str(error), _NAMES))
