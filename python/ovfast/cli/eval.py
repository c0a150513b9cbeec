"""`ovfast eval`: how good a model is, and what became of the one it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ovfast.cli.key import KeySource, key_options
from ovfast.cli.options import in_words_of_the_command_line

if TYPE_CHECKING:
    from ovfast.evaluate.generations import Generations
    from ovfast.evaluate.result import Evaluation
    from ovfast.evaluate.text import TextQuality
    from ovfast.evaluate.worker import Speed

__all__ = ["eval_command"]

_EXIT_FAILED = 1
_THRESHOLDS = ("max_kl", "min_agreement", "max_perplexity_ratio")
_WORST_LAYERS = 5
_EPILOG = """\b
Examples:
  ovfast eval model-dir
  ovfast eval model-int4 --against model-dir --html report.html
  ovfast eval model-int4 --against model-dir --max-kl 0.02 --min-agreement 0.95
  ovfast eval model-dir --text my-texts/ --positions 10000 --json > result.json
  ovfast eval model-dir --answers questions.jsonl --without layers --without speed
  ovfast eval model-dir --harness my_task --harness-path tasks/
"""


@click.command("eval", epilog=_EPILOG)
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="DIR0", type=click.Path(path_type=Path), help="The model it was made of."
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    help="Text file, folder or JSON lines; the default is text that comes with Python.",
)
@click.option("--positions", type=int, default=2000, show_default=True, help="Tokens to predict.")
@click.option("--context", type=int, default=256, show_default=True, help="Tokens of a window.")
@click.option(
    "--stride", type=int, default=128, show_default=True, help="From one window to the next."
)
@click.option("--exact", is_flag=True, help="Compute DIR in f32, as the original always is.")
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Prompts to answer instead of our own."
)
@click.option(
    "--max-new-tokens", type=int, default=48, show_default=True, help="Tokens of an answer."
)
@click.option("--raw", is_flag=True, help="Give prompts to the model as they are: no template.")
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help='JSON lines of {"prompt", "answer", "match": "contains", "exact" or "regex"}.',
)
@click.option("--harness", multiple=True, metavar="TASK", help="A task of lm-evaluation-harness.")
@click.option(
    "--harness-path", type=click.Path(path_type=Path), help="A folder with tasks of your own."
)
@click.option("--harness-limit", type=int, help="Documents of each task, at most.")
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["generations", "layers", "speed"]),
    help="Leave a part out; may be repeated.",
)
@click.option("--max-kl", type=float, help="Fail above this mean KL divergence, nats.")
@click.option("--min-agreement", type=float, help="Fail below this share of same best tokens.")
@click.option("--max-perplexity-ratio", type=float, help="Fail above this ratio of perplexities.")
@click.option("--allow-degenerate", is_flag=True, help="Loops and mere guessing are no failure.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a report with plots.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
@key_options()
def eval_command(
    model_dir: Path,
    against: Path | None,
    html: Path | None,
    max_kl: float | None,
    min_agreement: float | None,
    max_perplexity_ratio: float | None,
    as_json: bool,
    no_progress: bool,
    key: KeySource,
    **given: Any,
) -> None:
    """Measure the model directory DIR: on text, by its answers, and how fast it runs.

    With --against it is compared with the model that it was made of: the KL divergence of its
    predictions and the share of same best tokens, the first divergent token and the share of
    divergent tokens of its answers, and the error of each layer. docs/evaluation.md defines every
    figure.

    The exit code is 1 when a threshold (--max-kl, --min-agreement, --max-perplexity-ratio) is
    missed, or when the output degenerates: no numbers, answers in loops, mere guessing.
    """
    from ovfast.evaluate.options import Options, Thresholds
    from ovfast.evaluate.run import run

    names = [*given, *_THRESHOLDS, "html"]
    try:
        options = Options(**given)
        thresholds = Thresholds(max_kl, min_agreement, max_perplexity_ratio)
    except ValueError as error:
        raise click.UsageError(in_words_of_the_command_line(str(error), names)) from error
    if thresholds and against is None:
        raise click.UsageError("thresholds compare with the original: give it with --against")
    opened = key.get()
    try:
        result = run(
            model_dir, against, options, thresholds, html=html, progress=not no_progress, key=opened
        )
    except ValueError as error:  # what only the models and the texts show
        raise ValueError(in_words_of_the_command_line(str(error), names)) from error
    if as_json:
        click.echo(json.dumps(result.as_dict(), ensure_ascii=False, allow_nan=False))
    else:
        _print(result)
        if html is not None:
            click.echo(f"Report: {html}")
    for failure in result.failures:
        click.echo(f"ovfast: failed: {failure}", err=True)
    if not result.passed:
        raise click.exceptions.Exit(_EXIT_FAILED)


def _print(result: Evaluation) -> None:
    if result.text is not None:
        _print_text(result.text)
    if result.generations is not None:
        _print_generations(result.generations)
    if result.answers is not None:
        line = f"{result.answers.correct} of {result.answers.questions} correct"
        if result.answers.reference_correct is not None:
            line += f", the original {result.answers.reference_correct}"
        _line("Expected answers", line)
    for task, metrics in (result.harness or {}).items():
        for metric, value in metrics.items():
            line = f"{value:.4g}"
            if result.harness_reference is not None:
                line += f", the original {result.harness_reference[task][metric]:.4g}"
            _line(f"{task} {metric}", line)
    if result.layers is not None and result.layers.layers:
        for number, layer in enumerate(result.layers.layers[:_WORST_LAYERS]):
            title = "Worst layers" if number == 0 else ""
            _line(title, f"{layer.relative_error:.4f}  {layer.name} ({layer.operation})")
    if result.speed is not None:
        _print_speed(result.speed, result.speed_reference)
    for note in result.notes:
        click.echo(f"Note: {note}.")


def _print_text(text: TextQuality) -> None:
    size = f"{text.positions} positions, windows of {text.context}, {text.stride} apart"
    _line("Perplexity", f"{text.perplexity:.4f} ({size})")
    if text.perplexity_ratio is None:
        return
    _line("", f"{text.perplexity_ratio:.4f} times the original's {text.perplexity_reference:.4f}")
    _line(
        "KL divergence",
        f"mean {text.kl_mean:.5f}, median {text.kl_median:.5f}, 99 % {text.kl_p99:.4f}, "
        f"largest {text.kl_max:.3f} nats",
    )
    _line("Same best token", f"{text.top1_agreement:.2%}")


def _print_generations(said: Generations) -> None:
    if said.divergent_share is not None:
        _line("First divergent token", f"{said.first_divergent_token:.1f} on average")
        _line("Divergent tokens", f"{said.divergent_share:.2%}")
        _line(
            "Similarity of answers",
            f"{said.similarity:.2%}, {said.identical:.0%} the very same",
        )
    beside = "" if said.new_loops is None else f", {said.new_loops} where the original's do not"
    _line("Answers in a loop", f"{said.loops} of {said.prompts}{beside}")


def _print_speed(speed: Speed, other: Speed | None) -> None:
    rows: tuple[tuple[str, Callable[[Speed], str]], ...] = (
        ("Weights", lambda one: f"{one.weights_bytes / 1e6:.0f} MB"),
        ("TTFT", lambda one: f"{one.ttft_ms:.1f} ms ({one.prompt_tokens} tokens)"),
        ("TPOT", lambda one: f"{one.tpot_ms:.2f} ms"),
        ("Throughput", lambda one: f"{one.tokens_per_second:.1f} tokens/s"),
        ("Peak RSS", lambda one: f"{one.peak_rss_bytes / 1e6:.0f} MB"),
    )
    for title, form in rows:
        _line(title, form(speed) + ("" if other is None else f", the original {form(other)}"))


def _line(title: str, text: str) -> None:
    click.echo(f"{title + ':' if title else '':<23} {text}")
