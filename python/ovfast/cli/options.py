"""The options of the engine and of a generation, which several commands share.

The engine's own rules judge the values, for the command line as for Python; `check_options` asks
them before a model is loaded and says it in the command line's words. An option that was not given
is not passed on, so that the model's generation_config.json and the engine's defaults hold.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

__all__ = ["check_options", "in_words_of_the_command_line", "model_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


class _Property(click.ParamType[tuple[str, str]]):
    """KEY=VALUE."""

    name = "property"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As it is shown in the help."""
        return "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split at the first '='."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            self.fail(f"expected KEY=VALUE, got {value!r}", param, ctx)
        return key.strip(), text.strip()


def _option(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    # None means "not given": only then do the model's own defaults hold.
    attributes.setdefault("default", None)
    return click.option(*names, **attributes)


_GENERATION = {
    "max_new_tokens": _option(
        "--max-new-tokens", type=int, help="Tokens to generate at most; not with --max-length."
    ),
    "max_length": _option(
        "--max-length", type=int, help="Tokens of prompt and answer together, at most."
    ),
    "min_new_tokens": _option(
        "--min-new-tokens", type=int, help="Tokens before which the answer does not end."
    ),
    "temperature": _option("--temperature", type=float, help="0 is greedy."),
    "top_k": _option("--top-k", type=int, help="Sample from the K most probable tokens; 0: all."),
    "top_p": _option(
        "--top-p", type=float, help="Sample from the most probable tokens that sum to P."
    ),
    "min_p": _option(
        "--min-p", type=float, help="Sample from tokens at least P times as probable as the best."
    ),
    "repetition_penalty": _option(
        "--repetition-penalty", type=float, help="Above 1: seen tokens become less probable."
    ),
    "presence_penalty": _option(
        "--presence-penalty", type=float, help="Subtracted once from generated tokens, -2 to 2."
    ),
    "frequency_penalty": _option(
        "--frequency-penalty", type=float, help="Subtracted for each time generated, -2 to 2."
    ),
    "seed": _option("--seed", type=int, help="Same seed, same text."),
    "stop_strings": _option(
        "--stop",
        "stop_strings",
        multiple=True,
        metavar="TEXT",
        help="End the answer where TEXT appears; may be repeated.",
    ),
    "stop_token_ids": _option(
        "--stop-token-id",
        "stop_token_ids",
        multiple=True,
        type=int,
        metavar="ID",
        help="End the answer with this token; may be repeated.",
    ),
    "ignore_eos": _option(
        "--ignore-eos/--no-ignore-eos", help="Go on after the end-of-sequence token."
    ),
    "n": _option("--n", type=int, help="Answers to sample for the prompt."),
    "logprobs": _option(
        "--logprobs",
        type=int,
        metavar="K",
        help="Log-probabilities of each token and the K best, K from 0 to 20; needs --json.",
    ),
}

_ENGINE = {
    "device": _option("--device", help="OpenVINO device; the default is CPU."),
    "kv_cache_gb": _option(
        "--kv-cache-gb",
        type=float,
        help="Bound of the KV cache in GiB; the default follows from free memory.",
    ),
    "num_threads": _option(
        "--threads",
        "num_threads",
        type=int,
        help="Compute threads; the default follows from affinity and cgroup quota.",
    ),
    "max_context": _option("--max-context", type=int, help="Tokens of context, at most."),
    "max_batch_tokens": _option(
        "--max-batch-tokens", type=int, help="Tokens that one step computes, at most."
    ),
    "packed": _option(
        "--packed",
        type=click.Choice(["auto", "never"]),
        help="Run on packed weights, or never; the default is auto.",
    ),
    "activation_precision": _option(
        "--activation-precision",
        type=click.Choice(["int8", "int8_g128", "exact"]),
        help="Of activations in linear layers; the default is int8, with a scale for 32 values.",
    ),
    "attention": _option(
        "--attention",
        type=click.Choice(["auto", "ovfast", "openvino"]),
        help="Our own, the plugin's, or auto, the default: ours where it can run.",
    ),
    "tile_kb": _option(
        "--tile-kb",
        type=int,
        help="KiB of weights that a thread takes at a time while answering; the default is 64.",
    ),
    "tile_columns": _option(
        "--tile-columns",
        type=int,
        help="Output columns that a thread takes at a time of a prompt; the default is 512.",
    ),
    "gpu_operations": _option(
        "--gpu-operations",
        type=click.Choice(["openvino", "ovfast"]),
        help="On a GPU: OpenVINO's, the default, or OpenCL kernels of ovfast where they fit.",
    ),
    "tuned": _option(
        "--tuned/--no-tuned", help="Apply what `ovfast tune` chose, or not; the default is to."
    ),
    "properties": _option(
        "--property",
        "properties",
        multiple=True,
        type=_Property(),
        help="A further OpenVINO property, such as KV_CACHE_PRECISION=u8; may be repeated.",
    ),
}

# Where dashes for underscores are not all of the difference.
_FLAGS = {
    "stop_strings": "--stop",
    "stop_token_ids": "--stop-token-id",
    "num_threads": "--threads",
    "properties": "--property",
}

# What makes sense for a single answer to one prompt, but not in a conversation.
_ONE_PROMPT_ONLY = ("n", "logprobs")


def model_options(*, conversation: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a command with the options of the engine and of generations.

    The command gets two keyword arguments: `engine`, a dict for `LLM(...)`, and `generation`, one
    for its `generate`, `stream` and `chat` methods; each holds only what was given. A
    `conversation` has no `--n` and no `--logprobs`.
    """
    generation_options = {
        name: option
        for name, option in _GENERATION.items()
        if not (conversation and name in _ONE_PROMPT_ONLY)
    }

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def command(**given: Any) -> Any:
            generation = _take(given, generation_options)
            engine = _take(given, _ENGINE)
            if "properties" in engine:
                engine["properties"] = _as_mapping(engine["properties"])
            return function(engine=engine, generation=generation, **given)

        decorated: Any = command
        # click lists options in the reverse order of decoration.
        for option in reversed([*generation_options.values(), *_ENGINE.values()]):
            decorated = option(decorated)
        return decorated

    return decorate


def check_options(engine: dict[str, Any], generation: dict[str, Any]) -> None:
    """Judge what was given, without a model: ranges, and options that contradict each other.

    Raises UsageError that names the options as the command line does.
    """
    from ovfast import _core
    from ovfast.engine_options import engine_options

    try:
        engine_options(**{name: engine[name] for name in engine if name != "tuned"})
        # The model's own temperature may be above 0: only with it is the rest contradictory.
        _core.SamplingParams(**{"temperature": 1.0, **generation}).validate()
    except (TypeError, ValueError) as error:
        raise click.UsageError(_in_words_of_the_command_line(str(error))) from error


def in_words_of_the_command_line(message: str, names: Iterable[str]) -> str:
    """Write options as flags: where a message begins with one, and before the "=" of a value."""
    pattern = "|".join(sorted(names, key=len, reverse=True))
    return re.sub(
        rf"^({pattern})\b|(?<![\w'-])({pattern})(?==(?!True))",
        lambda match: f"--{(match[1] or match[2]).replace('_', '-')}",
        message,
    )


def _in_words_of_the_command_line(message: str) -> str:
    def flag(match: re.Match[str]) -> str:
        return _FLAGS.get(match[1], f"--{match[1].replace('_', '-')}")

    # A list's index says nothing where the option is repeated; quoted text is a value, not a name.
    names = "|".join([*_GENERATION, *_ENGINE])
    return re.sub(rf"(?<![\w'-])({names})\b(?:\[\d+\])?(?!')", flag, message)


def _take(given: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    taken = {name: given.pop(name) for name in names}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in taken.items()
        if value is not None and value != ()
    }


def _as_mapping(properties: list[tuple[str, str]]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for key, value in properties:
        if mapping.setdefault(key, value) != value:
            raise click.UsageError(f"--property {key} is given twice: {mapping[key]} and {value}")
    return mapping
