"""How good a model is: on text, beside the model that it was made of, and in use.

    import ovfast

    result = ovfast.evaluate("model-int4", against="model", html="report.html")
    print(result.text.kl_mean, result.text.top1_agreement, result.passed)

docs/evaluation.md defines every figure.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovfast.crypto import Key
    from ovfast.evaluate.options import Thresholds
    from ovfast.evaluate.result import Evaluation

__all__ = ["evaluate", "prove"]


def evaluate(
    model_dir: str | Path,
    against: str | Path | None = None,
    *,
    text: str | Path | None = None,
    positions: int = 2000,
    context: int = 256,
    stride: int = 128,
    exact: bool = False,
    prompts: str | Path | None = None,
    max_new_tokens: int = 48,
    raw: bool = False,
    answers: str | Path | None = None,
    harness: Sequence[str] = (),
    harness_path: str | Path | None = None,
    harness_limit: int | None = None,
    without: Sequence[str] = (),
    max_kl: float | None = None,
    min_agreement: float | None = None,
    max_perplexity_ratio: float | None = None,
    allow_degenerate: bool = False,
    html: str | Path | None = None,
    progress: bool = True,
    key: Key | bytes | str | Path | None = None,
) -> Evaluation:
    """Measure a model on text, by its answers, layer by layer, and how fast it runs.

    Args:
        model_dir: A model directory, stock or packed, or a GGUF file.
        against: The model that it was made of, the original: it computes in f32. Without one there
            are no comparisons.
        text: A text file, a folder or JSON lines, as `corpus.read_texts` takes it. None is
            documentation and sources of Python.
        positions: Tokens that are predicted and counted, at most.
        context: Tokens of a window.
        stride: From the begin of a window to that of the next.
        exact: Compute the model in f32 too. Otherwise as it runs in use: activations in 8 bits, and
            the precisions that the processor is fast in.
        prompts: JSON lines of "prompt" or "messages", or texts as in `text`, each whole; None takes
            a dozen short questions.
        max_new_tokens: Tokens of an answer, at most; below 32 no loops are found.
        raw: Prompts go to the model as they are, without its chat template.
        answers: JSON lines with prompts and the answers expected, as `expected.read_questions`
            takes them.
        harness: Tasks of lm-evaluation-harness (extra "harness").
        harness_path: A folder with tasks of your own.
        harness_limit: Documents of each task, at most.
        without: Parts to leave out: "generations", "layers", "speed".
        max_kl: Mean KL divergence, nats, above which the model fails.
        min_agreement: Share of positions with the same best token, below which it fails.
        max_perplexity_ratio: Perplexity by the original's, above which it fails.
        allow_degenerate: Answers in loops and predictions no better than guessing are no failure.
        html: A file for the report, one page with plots (extra "evaluate").
        progress: Show a progress bar on stderr.
        key: Opens what is encrypted of the two directories.

    Returns:
        An Evaluation; `passed` and `failures` tell how it ended.

    Raises:
        ValueError, TypeError: An argument is out of range, text or questions are malformed, or the
            two models do not have the same tokenizer.
        ModelError: A directory holds no usable model.
        Error: An extra is missing, or the report cannot be written.
    """
    from ovfast.crypto import as_key
    from ovfast.evaluate.options import Options, Thresholds
    from ovfast.evaluate.run import run

    options = Options(
        text=text,
        positions=positions,
        context=context,
        stride=stride,
        exact=exact,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        raw=raw,
        answers=answers,
        harness=harness,
        harness_path=harness_path,
        harness_limit=harness_limit,
        without=without,
        allow_degenerate=allow_degenerate,
    )
    thresholds = Thresholds(max_kl, min_agreement, max_perplexity_ratio)
    opened = None if key is None else as_key(key)
    return run(model_dir, against, options, thresholds, html=html, progress=progress, key=opened)


def prove(
    model_dir: str | Path,
    against: str | Path,
    thresholds: Thresholds | Mapping[str, float | None] | None = None,
    *,
    text: str | Path | None = None,
    positions: int = 2000,
    exact: bool = False,
    allow_degenerate: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare a model with its original on text and by its answers, for a manifest.

    Args:
        model_dir: A model directory.
        against: The model that it was made of.
        thresholds: `Thresholds`, or a mapping of its names.
        text: As in `evaluate`.
        positions: As in `evaluate`.
        exact: As in `evaluate`.
        allow_degenerate: As in `evaluate`.
        progress: As in `evaluate`.

    Returns:
        JSON's types: "passed", "failures" (sentences), "against", "positions", "context", "stride",
        "exact", "perplexity", "perplexity_reference", "perplexity_ratio", "kl_mean", "kl_median",
        "kl_p99", "kl_max", "top1_agreement", "prompts", "first_divergent_token",
        "divergent_share", "similarity", "thresholds" and "tools". Figures are None when the model
        gives no numbers.

    Raises what `evaluate` does; a missed threshold is no exception.
    """
    from ovfast.evaluate.options import Options, Thresholds
    from ovfast.evaluate.run import run

    if not isinstance(thresholds, Thresholds):
        thresholds = Thresholds(**(thresholds or {}))
    options = Options(
        text=text,
        positions=positions,
        exact=exact,
        without=("layers", "speed"),
        allow_degenerate=allow_degenerate,
    )
    result = run(model_dir, against, options, thresholds, html=None, progress=progress)
    found = result.as_dict()
    measured, said = found["text"] or {}, found["generations"] or {}
    return {
        **{name: found[name] for name in ("passed", "failures", "against")},
        "positions": measured.get("positions"),
        "context": options.context,
        "stride": options.stride,
        "exact": exact,
        **{
            name: measured.get(name)
            for name in (
                *("perplexity", "perplexity_reference", "perplexity_ratio"),
                *("kl_mean", "kl_median", "kl_p99", "kl_max", "top1_agreement"),
            )
        },
        **{
            name: said.get(name)
            for name in ("prompts", "first_divergent_token", "divergent_share", "similarity")
        },
        "thresholds": found["thresholds"],
        "tools": found["tools"],
    }


class _CallableModule(types.ModuleType):
    """`ovfast.evaluate` is the function and this package: whoever imports a part of it sets the name.

    So the package can be called, too.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Evaluation:
        return evaluate(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
