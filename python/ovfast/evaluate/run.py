"""The steps of an evaluation, one after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from ovfast import _core
from ovfast._openvino import tokenizers_extension
from ovfast.chat_template import ChatTemplate
from ovfast.crypto import Key, is_encrypted
from ovfast.errors import ModelError
from ovfast.evaluate.corpus import read_texts
from ovfast.evaluate.degeneration import NotFiniteError
from ovfast.evaluate.expected import Graded, Question, grade, read_questions
from ovfast.evaluate.generations import Generations, compare_answers, describe_answers
from ovfast.evaluate.judge import degenerations, missed
from ovfast.evaluate.layers import LayerReport, rank_layers
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.options import Options, Thresholds, require
from ovfast.evaluate.prompts import PROMPTS, Prompt, read_prompts
from ovfast.evaluate.result import Evaluation
from ovfast.evaluate.text import TextQuality, measure_text
from ovfast.evaluate.windows import make_windows
from ovfast.evaluate.worker import Run, run_model
from ovfast.llm import resolve
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar

__all__ = ["run"]

_LAYER_POSITIONS = 64
# About how the time is shared out: answers and speed, text, generations, layers.
_BEGINS = {"answers": 0.0, "text": 0.25, "compare": 0.75, "layers": 0.85, "harness": 0.95}

Show = Callable[[float, str], None]


class _Model:
    """A directory, its tokenizer and its chat template."""

    def __init__(self, source: str | Path, key: Key | None, progress: bool) -> None:
        path = resolve(source, progress, "auto")
        self.dir = ModelDir.check(path, key if is_encrypted(path) else None)
        self.path = self.dir.path
        self.name = Path(source).resolve().name
        self.tokenizer = _core.Tokenizer(self.dir.files, tokenizers_extension())

    def prompt_ids(self, prompt: Prompt, raw: bool) -> list[int]:
        """Token ids of a prompt; text becomes a user's message unless `raw` or no template."""
        if isinstance(prompt, str):
            if raw or self.template is None:
                return self.tokenizer.encode(prompt)
            prompt = [{"role": "user", "content": prompt}]
        text = self.dir.load_chat_template().render(prompt)
        return self.tokenizer.encode(text, add_special_tokens=False)

    @cached_property
    def template(self) -> ChatTemplate | None:
        """None if there is none; a broken one raises ModelError."""
        try:
            return self.dir.load_chat_template()
        except ModelError as error:
            if error.__cause__ is not None:
                raise
            return None


def run(
    model_dir: str | Path,
    against: str | Path | None,
    options: Options,
    thresholds: Thresholds,
    *,
    html: str | Path | None,
    progress: bool,
    key: Key | None = None,
) -> Evaluation:
    """Do what `ovfast.evaluate` describes."""
    start = time.perf_counter()
    if key is not None and not any(is_encrypted(one) for one in (model_dir, against) if one):
        raise ValueError(f"'{model_dir}' is not encrypted, but a key was given")
    if thresholds and against is None:
        raise ValueError("thresholds compare with the original: give it with against")
    if html is not None:
        require("matplotlib", "evaluate")
        _check_report(Path(html))
    questions = [] if options.answers is None else read_questions(options.answers)
    prompts = [] if "generations" in options.without else read_prompts(options.prompts)
    model = _Model(model_dir, key, progress)
    texts = read_texts(options.text, chat_template=model.template)
    reference = None if against is None else _Model(against, key, progress)
    if reference is not None:
        _check_same_tokenizer(model, reference, [*PROMPTS, texts[0][:2000]])
    longest = model.dir.context_length
    if longest is not None and options.context > longest:
        raise ValueError(
            f"context is {options.context}, but '{model.path}' was made for {longest} tokens"
        )

    notes: list[str] = []
    with Bar(model.name, progress) as bar:
        ids = [model.prompt_ids(prompt, options.raw) for prompt in prompts]
        asked = [model.prompt_ids(one.prompt, options.raw) for one in questions]
        refusal = None
        try:
            ours, theirs = _answers(model, reference, ids, asked, options, bar.show)
        except ModelError as error:
            # The engine refuses NaN, too; then the text shows where it comes from.
            ours, theirs, refusal = None, None, error
        text, generations, failures = _measure(
            model, reference, texts, prompts, ids, ours, theirs, options, bar.show, notes
        )
        if refusal is not None and text is not None:
            raise refusal
        layers = None
        if reference is not None and "layers" not in options.without:
            bar.show(_BEGINS["layers"], "layers")
            layers = _rank(model, reference, texts, notes)
            if layers.not_finite:
                failures.append(f"these layers give no numbers: {', '.join(layers.not_finite)}")
        harness = harness_reference = None
        if options.harness and text is not None:
            bar.show(_BEGINS["harness"], "harness")
            harness = _harness(model, options, progress)
            if reference is not None:
                harness_reference = _harness(reference, options, progress)
    if text is not None:
        failures += missed(text, thresholds)
    result = Evaluation(
        model=model.name,
        against=None if reference is None else reference.name,
        options=options,
        thresholds=thresholds,
        seconds=time.perf_counter() - start,
        text=text,
        generations=generations,
        layers=layers,
        speed=None if ours is None else ours.speed,
        speed_reference=None if theirs is None else theirs.speed,
        answers=_grade(questions, ours, theirs),
        harness=harness,
        harness_reference=harness_reference,
        failures=failures,
        notes=notes,
    )
    if html is not None:
        from ovfast.evaluate.page import write_page

        write_page(result, Path(html))
    return result


def _check_report(path: Path) -> None:
    """Raise ValueError for a report that cannot be written, before minutes are spent on it."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"html: the folder of '{path}' does not exist")
    if path.is_dir():
        raise ValueError(f"html: expected a file to write, got the folder '{path}'")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"html: the folder of '{path}' cannot be written to: {error}") from error


def _check_same_tokenizer(model: _Model, reference: _Model, samples: Sequence[str]) -> None:
    for sample in samples:
        ours, theirs = model.tokenizer.encode(sample), reference.tokenizer.encode(sample)
        if ours != theirs:
            at = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            raise ValueError(
                f"'{model.path}' and '{reference.path}' have different tokenizers (token {at} of "
                f"{sample[:40]!r}): only a model and what was made of it can be compared"
            )


def _answers(
    model: _Model,
    reference: _Model | None,
    ids: list[list[int]],
    asked: list[list[int]],
    options: Options,
    show: Show,
) -> tuple[Run | None, Run | None]:
    """Let each model answer in a process of its own, before this one takes memory."""
    speed = "speed" not in options.without
    if not ids and not asked and not speed:
        return None, None
    runs: list[Run] = []
    for one in filter(None, (model, reference)):
        show(_BEGINS["text"] * len(runs) / 2, f"answers of {one.name}")
        runs.append(
            run_model(one.dir, ids, asked, max_new_tokens=options.max_new_tokens, speed=speed)
        )
    return runs[0], runs[1] if reference is not None else None


def _measure(
    model: _Model,
    reference: _Model | None,
    texts: list[str],
    prompts: list[Prompt],
    ids: list[list[int]],
    ours: Run | None,
    theirs: Run | None,
    options: Options,
    show: Show,
    notes: list[str],
) -> tuple[TextQuality | None, Generations | None, list[str]]:
    """What needs the logits of both: text, answers, and whether they degenerate."""
    windows = make_windows(
        model.tokenizer,
        texts,
        positions=options.positions,
        context=options.context,
        stride=options.stride,
    )
    show(_BEGINS["text"], "loading")
    logits = PositionLogits(model.dir, exact=options.exact)
    expected = None if reference is None else PositionLogits(reference.dir, exact=True)
    if expected is not None and expected.vocab_size != logits.vocab_size:
        raise ValueError(
            f"'{model.path}' gives {logits.vocab_size} logits and the original "
            f"{expected.vocab_size}: only a model and what was made of it can be compared"
        )
    text = generations = None
    try:
        text = measure_text(
            logits,
            expected,
            windows,
            context=options.context,
            stride=options.stride,
            name=model.name,
            decode=model.tokenizer.decode,
            show=lambda part: show(_between("text", "compare", part), "text"),
        )
        if prompts and ours is not None:
            if expected is None or theirs is None:
                generations = describe_answers(prompts, ours.answers, options.max_new_tokens)
            else:
                generations = compare_answers(
                    prompts,
                    ids,
                    ours.answers,
                    theirs.answers,
                    logits,
                    expected,
                    max_new_tokens=options.max_new_tokens,
                    name=model.name,
                    show=lambda part: show(_between("compare", "layers", part), "answers"),
                )
    except NotFiniteError as error:
        return text, None, [str(error)]
    if text.positions < options.positions:
        notes.append(f"the texts have {text.positions} positions; {options.positions} were wanted")
    failures = (
        [] if options.allow_degenerate else degenerations(text, generations, logits.vocab_size)
    )
    return text, generations, failures


def _between(begin: str, end: str, part: float) -> float:
    return _BEGINS[begin] + (_BEGINS[end] - _BEGINS[begin]) * part


def _rank(model: _Model, reference: _Model, texts: Sequence[str], notes: list[str]) -> LayerReport:
    ids = model.tokenizer.encode(texts[0])[:_LAYER_POSITIONS]
    report = rank_layers(model.dir, reference.dir, ids)
    if report.reason is not None:
        notes.append(f"layers could not be compared: {report.reason}")
    elif report.unmatched:
        notes.append(
            f"{len(report.unmatched)} layers have no like in the original, such as "
            f"{report.unmatched[0]}"
        )
    return report


def _harness(model: _Model, options: Options, progress: bool) -> dict[str, dict[str, float]]:
    from ovfast.evaluate.harness import run_harness

    return run_harness(
        model.dir,
        options.harness,
        include_path=options.harness_path,
        limit=options.harness_limit,
        progress=progress,
    )


def _grade(questions: list[Question], ours: Run | None, theirs: Run | None) -> Graded | None:
    if not questions or ours is None:
        return None
    return grade(
        questions,
        [one.text for one in ours.batch],
        None if theirs is None else [one.text for one in theirs.batch],
    )
