"""Which options run a model fastest on this machine: measured, chosen, and stored for loading."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from ovfast import _core
from ovfast.crypto import Key
from ovfast.errors import CapacityError
from ovfast.llm import LLM, resolve
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar
from ovfast.tuning import (
    PRECISION_HINT,
    identity,
    read_tuning,
    require_writable,
    tuning_path,
    write_tuning,
)

__all__ = ["Choice", "Measured", "Round", "Tuned", "choose", "confirm", "tune"]

_DECODED_IN_SCORE = 128  # tokens
_LEAST_NOISE = 0.02  # differences below do not survive a change of temperature
_SHORT_PROMPT, _PROMPT, _LONG_PROMPT = 16, 512, 1024  # tokens
_DECODED = 16  # tokens that are timed
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 5
_STAGE_SECONDS = 10.0  # after which a stage takes no more rounds than it must
_CHUNKS = (256, 512, 1024)
_TILE_KB, _TILE_COLUMNS = (16, 32, 64, 128, 256), (256, 512, 1024)


@dataclass(frozen=True)
class Round:
    """One measurement of one candidate."""

    tpot_seconds: float
    """Median time between tokens after a short prompt."""
    prefill_seconds: float
    """Time to the first token after a long prompt, of which nothing was cached."""

    @property
    def score(self) -> float:
        """Seconds for a typical answer: 128 tokens and a prompt."""
        return self.tpot_seconds * _DECODED_IN_SCORE + self.prefill_seconds


@dataclass(frozen=True)
class Measured:
    """A candidate: a value of an option, with the medians over its rounds."""

    value: Any
    """None is what the engine chooses."""
    tpot_seconds: float
    prefill_seconds: float
    score_seconds: float
    gain: float
    """Part of the default's score that is saved: the median over the rounds, each for itself."""
    noise: float
    """Range of the gain over the rounds, of five without best and worst; at least 2 %."""
    rounds: list[Round]

    @classmethod
    def of(cls, value: Any, rounds: Sequence[Round], default: Sequence[Round]) -> Measured:
        """Compare rounds with the default's, which were taken in turns with them."""
        # Within a round, so that load that comes or goes meanwhile is no difference between them.
        gains = sorted(
            1 - one.score / reference.score for one, reference in zip(rounds, default, strict=True)
        )
        middle = gains[1:-1] if len(gains) >= _MOST_ROUNDS else gains
        tpot = statistics.median(one.tpot_seconds for one in rounds)
        prefill = statistics.median(one.prefill_seconds for one in rounds)
        return cls(
            value=value,
            tpot_seconds=tpot,
            prefill_seconds=prefill,
            score_seconds=Round(tpot, prefill).score,
            gain=statistics.median(gains),
            noise=max(_LEAST_NOISE, middle[-1] - middle[0]),
            rounds=list(rounds),
        )


@dataclass(frozen=True)
class Choice:
    """What was chosen for an option, and why."""

    option: str
    default: Any
    chosen: Any
    gain: float
    """Part of the default's score that is saved; 0 for the default."""
    why: str
    prompt_tokens: int
    """Of the prompt whose prefill was timed; 0 when nothing was to choose."""
    candidates: list[Measured]


class Tuned(NamedTuple):
    """The result of `tune`."""

    tuning: dict[str, Any]
    """What is stored: "options" that differ from the default, "stages" as they were measured."""
    path: Path
    reused: bool
    """It was stored before; nothing was measured."""


@dataclass(frozen=True)
class _Stage:
    option: str
    default: Any
    values: Sequence[Any]
    nothing_to_choose: str
    prompt_tokens: int = _PROMPT


def choose(
    option: str, default: Any, rounds: Mapping[Any, Sequence[Round]], prompt_tokens: int
) -> Choice:
    """Choose the value with the best score, but the default unless the gain exceeds the noise.

    Args:
        option: The option's name.
        default: Its default, one of the values.
        rounds: For each value; those of all values were taken in turns. Values that were given up
            have fewer than the default.
        prompt_tokens: Length of the prompt whose prefill was timed.
    """
    measured = [
        Measured.of(value, its, rounds[default][: len(its)]) for value, its in rounds.items()
    ]
    certain = [one for one in measured if one.gain > one.noise]
    best = max(certain or measured, key=lambda one: one.gain)
    why = f"saves {best.gain:.1%}, noise is {best.noise:.1%}"
    if certain:
        return Choice(option, default, best.value, best.gain, why, prompt_tokens, measured)
    if best.gain <= 0:
        why = "nothing is faster than the default"
    else:
        why = f"the default stays: {best.value} {why}"
    return Choice(option, default, default, 0.0, why, prompt_tokens, measured)


def tune(
    source: str | Path,
    *,
    allow_activation_group: int = 32,
    force: bool = False,
    progress: bool = True,
    key: Key | None = None,
) -> Tuned:
    """Measure which options run a model fastest on this machine, and store the choice.

    Threads, attention, precision, the tiles of the kernels and the prefill chunk are chosen one
    after the other. The candidates for an option are loaded together and measured in turns, and what wins is compared with the
    default once more. `LLM` applies the choice from then on.

    Args:
        source: A model directory or a GGUF file.
        allow_activation_group: 128 also tries int8 activations with one scale for 128 values
            ("int8_g128"), which is less precise than the default, one for 32.
        force: Measure again what was measured before.
        progress: Show a progress bar.
        key: Opens an encrypted directory.

    Raises:
        ModelError: The source is no usable model.
        CapacityError: The candidates do not fit into memory together, or the context is too short.
        Error: The cache cannot be written to.
        ValueError: `allow_activation_group` is neither 32 nor 128.
    """
    if allow_activation_group not in (32, 128):
        raise ValueError(f"allow_activation_group is {allow_activation_group}, expected 32 or 128")
    model = ModelDir.check(resolve(source, progress, "auto"), key)
    if not force:
        stored = read_tuning(model)
        if stored is not None and stored.get("activation_group", 32) == allow_activation_group:
            return Tuned(stored, tuning_path(model), True)
    require_writable()
    start = time.perf_counter()
    choices = _measure_all(model, key, allow_activation_group, progress)
    tuning = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - start,
        "activation_group": allow_activation_group,
        "options": {one.option: one.chosen for one in choices if one.chosen != one.default},
        "stages": [asdict(one) for one in choices],
        "holds_for": identity(model),
    }
    return Tuned(tuning, write_tuning(model, tuning), False)


def _measure_all(
    model: ModelDir, key: Key | None, activation_group: int, progress: bool
) -> list[Choice]:
    with _Models(model, key) as models, Bar(model.path.resolve().name, progress) as bar:
        stages = _stages(models.load({}, progress), activation_group)
        chosen: dict[str, Any] = {}
        choices = []
        for number, stage in enumerate(stages):

            def show(fraction: float, at: int = number, stage: _Stage = stage) -> None:
                bar.show((at + fraction) / len(stages), stage.option)

            choice = _measure_stage(models, stage, chosen, show)
            choices.append(choice)
            if choice.chosen != stage.default:
                chosen[stage.option] = choice.chosen
            models.close_all_but(chosen)
    return choices


def _stages(llm: LLM, activation_group: int) -> list[_Stage]:
    host, info = _core.read_host_limits(), llm.info
    if info.max_context < _SHORT_PROMPT + 1 + _DECODED:
        raise CapacityError(
            f"the context has {info.max_context} tokens, and tuning needs "
            f"{_SHORT_PROMPT + 1 + _DECODED}"
        )
    chunk = _core.EngineOptions().max_batch_tokens
    prompt = min(_LONG_PROMPT, info.max_context - 1)
    # Chunks that hold the whole prompt are all alike.
    chunks = {min(size, prompt): size for size in (*_CHUNKS, chunk)}
    stages = [
        _Stage(
            "num_threads",
            host.threads,
            list(dict.fromkeys([host.threads, max(1, host.threads // 2)])),
            "one thread is all that this process may use",
        ),
        _Stage(
            "attention",
            "auto",
            ["auto", "openvino"] if info.attention == "ovfast" else ["auto"],
            f"only OpenVINO's attention runs this model here: {info.attention_reason}",
        ),
        _Stage(
            "inference_precision",
            None,
            [None, "f32", "bf16"] if "avx512_bf16" in host.isa else [None],
            "the processor computes in f32 only",
        ),
        *(
            _Stage(
                option,
                default,
                values if info.packed_dir != Path() else [default],
                "the model runs on OpenVINO's own operations",
            )
            for option, default, values in (
                ("tile_kb", 64, _TILE_KB),
                ("tile_columns", 512, _TILE_COLUMNS),
            )
        ),
        _Stage(
            "max_batch_tokens",
            chunk,
            sorted(chunks.values()),
            "the context is shorter than any chunk",
            _LONG_PROMPT,
        ),
    ]
    if activation_group == 128:
        values = ["int8", "int8_g128"]
        stages.append(_Stage("activation_precision", "int8", values, "", _LONG_PROMPT))
    return stages


def _measure_stage(
    models: _Models, stage: _Stage, chosen: Mapping[str, Any], show: Callable[[float], None]
) -> Choice:
    if len(stage.values) == 1:
        return Choice(
            stage.option, stage.default, stage.default, 0.0, stage.nothing_to_choose, 0, []
        )
    show(0.0)
    models.require_room(len(stage.values))
    llms = {
        value: models.load({**chosen, **({} if value == stage.default else {stage.option: value})})
        for value in stage.values
    }
    llm = llms[stage.default]
    prompt_tokens = min(stage.prompt_tokens, llm.info.max_context - 1)
    vocabulary = range(min(llm.tokenizer.vocab_size, llm.info.vocab_size))
    ids = random.Random(0).choices(vocabulary, k=prompt_tokens)
    rounds = _take_turns(llms, stage.default, ids, _MOST_ROUNDS, lambda done: show(0.7 * done))
    choice = choose(stage.option, stage.default, rounds, prompt_tokens)
    if choice.chosen == stage.default:
        return choice
    # Of several that differ by chance alone one seems to win: it has to do so twice.
    two = {value: llms[value] for value in (stage.default, choice.chosen)}
    rounds = _take_turns(
        two, stage.default, ids, _LEAST_ROUNDS, lambda done: show(0.7 + 0.3 * done)
    )
    return confirm(choice, choose(stage.option, stage.default, rounds, prompt_tokens))


def confirm(first: Choice, second: Choice) -> Choice:
    """Keep what was chosen only if a second comparison with the default chooses it, too."""
    if second.chosen == first.chosen:
        return replace(first, gain=second.gain, why=f"{first.why}; again: {second.why}")
    why = f"the default stays: {first.chosen} {first.why}; but not again: {second.why}"
    return replace(first, chosen=first.default, gain=0.0, why=why)


def _take_turns(
    llms: Mapping[Any, LLM],
    default: Any,
    ids: Sequence[int],
    most: int,
    show: Callable[[float], None],
) -> dict[Any, list[Round]]:
    """Measure up to `most` rounds, fewer when they take long; not to the end what cannot win."""
    rounds: dict[Any, list[Round]] = {value: [] for value in llms}
    order = list(llms)
    start = time.perf_counter()
    for done in range(most + 1):
        if done > _LEAST_ROUNDS:
            order = [
                value for value in order if value == default or _may_win(rounds, value, default)
            ]
            if len(order) == 1 or time.perf_counter() - start > _STAGE_SECONDS:
                break
        for place, value in enumerate(order):
            one = _measure(llms[value], ids)
            if done:  # the first inferences also pay for what is made only once
                rounds[value].append(one)
            show((done + (place + 1) / len(order)) / (most + 1))
        order.reverse()  # whatever drifts does so for all
    return rounds


def _may_win(rounds: Mapping[Any, Sequence[Round]], value: Any, default: Any) -> bool:
    measured = Measured.of(value, rounds[value], rounds[default])
    return measured.gain + measured.noise > 0


def _measure(llm: LLM, ids: Sequence[int]) -> Round:
    """Time one short and one long prompt, random tokens: what they say costs nothing."""
    decoded = llm.generate(ids[:_SHORT_PROMPT], max_new_tokens=1 + _DECODED, ignore_eos=True)
    prefill = llm.generate(ids, max_new_tokens=1, ignore_eos=True)
    tpot = decoded.metrics.tpot_p50
    assert tpot is not None
    return Round(tpot, prefill.metrics.ttft_seconds)


class _Models:
    """The candidates of a stage, all loaded: packed weights are mapped once for all of them."""

    def __init__(self, model: ModelDir, key: Key | None = None) -> None:
        self._model = model
        self._key = key
        self._loaded: dict[tuple[tuple[str, Any], ...], LLM] = {}

    def __enter__(self) -> _Models:
        return self

    def __exit__(self, *_: object) -> None:
        for llm in self._loaded.values():
            llm.close()

    def load(self, options: Mapping[str, Any], progress: bool = False) -> LLM:
        key = tuple(sorted(options.items()))
        if key not in self._loaded:
            engine = dict(options)
            if "inference_precision" in engine:
                engine["properties"] = {PRECISION_HINT: engine.pop("inference_precision")}
            context = self._model.context_length or _LONG_PROMPT + 1
            self._loaded[key] = LLM(
                self._model.path,
                max_context=min(context, _LONG_PROMPT + 1),
                max_sequences=1,
                prefix_caching=False,
                tuned=False,
                progress=progress,
                key=self._key,
                **engine,
            )
        return self._loaded[key]

    def close_all_but(self, options: Mapping[str, Any]) -> None:
        keep = tuple(sorted(options.items()))
        for key in [key for key in self._loaded if key != keep]:
            self._loaded.pop(key).close()

    def require_room(self, models: int) -> None:
        """Raise CapacityError when no such number, the one that is loaded among them, fits."""
        info = next(iter(self._loaded.values())).info
        copies = models - 1
        room = _core.read_host_limits().memory_available
        shared = info.packed_dir != Path() and not self._model.files.encrypted
        if not shared and copies * info.weights_bytes > room:
            raise CapacityError(
                f"tuning compares {models} ways to run the model, each with weights of its own: "
                f"{copies * info.weights_bytes / 1e6:.0f} MB more, but {room / 1e6:.0f} MB are "
                "available. Packed weights are shared: ovfast pack DIR"
            )
