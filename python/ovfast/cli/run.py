"""`ovfast run`: one prompt, one answer, and a report of what it cost."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ovfast.cli.key import key_options
from ovfast.cli.options import check_options, model_options
from ovfast.cli.streaming import quiet_when_nobody_reads, stream_answer

if TYPE_CHECKING:
    from ovfast.cli.key import KeySource
    from ovfast.llm import LLM, TextStream
    from ovfast.results import Generation

__all__ = ["run_command"]

_EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports


@click.command("run")
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="The system message before the prompt.")
@click.option("--raw", is_flag=True, help="Give the prompt to the model as it is: no template.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--no-report", is_flag=True, help="Do not print the report to stderr.")
@key_options()
@model_options()
@quiet_when_nobody_reads()
def run_command(
    model: str,
    prompt: str | None,
    system: str | None,
    raw: bool,
    as_json: bool,
    no_report: bool,
    key: KeySource,
    engine: dict[str, Any],
    generation: dict[str, Any],
) -> None:
    """Answer PROMPT with MODEL, a model directory or a GGUF file.

    The answer goes to stdout as it is generated, the report to stderr. The prompt is read from
    stdin when it is "-", or when it is missing and stdin is not a terminal; one line break at its
    end is dropped. The model's chat template is applied when it has one, unless --raw is given.

    Ctrl+C ends the answer; what was generated is printed, and the exit code is 130. Several
    answers (--n) are printed when all are done, and Ctrl+C prints none of them.

    \b
    Examples:
      ovfast run model-dir "Why is the sky blue?" --max-new-tokens 200
      ovfast run model.gguf "1, 1, 2, 3," --raw --temperature 0.8 --seed 1
      git diff | ovfast run model-dir --system "Write a commit message." > message.txt
      ovfast run model-dir "Hello" --json --logprobs 3
      ovfast run model-dir.enc "Hello" --key-file model.key
    """
    if raw and system is not None:
        raise click.UsageError("--system is part of a chat template, which --raw leaves out")
    check_options(engine, generation)
    if "logprobs" in generation and not as_json:
        raise click.UsageError("--logprobs is shown by --json only: give both")
    if key.takes_stdin and prompt in (None, "-"):
        raise click.UsageError("the key comes from stdin: give the prompt as an argument")
    text = _read_prompt(prompt)

    from ovfast import _core
    from ovfast.llm import LLM
    from ovfast.report import format_report, generation_dict, report_dict

    several = generation.get("n", 1) != 1
    with LLM(model, progress=sys.stderr.isatty(), **key.for_llm(), **engine) as llm:
        messages = None if raw else _messages(llm, text, system)
        interrupted = False
        if several:
            result = _several_answers(llm, text, messages, generation)
        else:
            stream = _stream(llm, text, messages, generation)
            result, interrupted = _print_answer(stream, live=not as_json)
        report = report_dict(
            result, llm.info, _core.read_process_memory(), load_seconds=llm.load_seconds
        )
        if as_json:
            whole = generation_dict(result, report, lambda token_id: _token_text(llm, token_id))
    if as_json:
        click.echo(json.dumps(whole, ensure_ascii=False, allow_nan=False))
    else:
        if several:
            _print_answers(result)
        if not no_report:
            click.echo(f"\n{format_report(report)}", err=True)
    if interrupted:
        raise click.exceptions.Exit(_EXIT_INTERRUPTED)


def _read_prompt(argument: str | None) -> str:
    if argument is None and sys.stdin.isatty():
        raise click.UsageError("no prompt: give one, or '-' to read it from stdin")
    if argument is None or argument == "-":
        data = sys.stdin.buffer.read()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise click.UsageError(
                f"the prompt on stdin is not valid UTF-8: {error.reason} at byte {error.start}"
            ) from error
        text = text.removesuffix("\n").removesuffix("\r")
    else:
        text = argument
        try:
            text.encode("utf-8")  # bytes that are none arrive as lone surrogates
        except UnicodeEncodeError as error:
            raise click.UsageError(
                f"the prompt is not valid UTF-8 at character {error.start}"
            ) from error
    if not text:
        raise click.UsageError("the prompt is empty")
    return text


def _messages(llm: LLM, text: str, system: str | None) -> list[dict[str, str]] | None:
    """The conversation to answer, or None when the model has no chat template."""
    from ovfast.errors import ModelError

    try:
        _ = llm.chat_template
    except ModelError as error:
        if error.__cause__ is not None:
            raise  # it has one, but a broken one: raw text would be a silent way out
        if system is not None:
            raise click.UsageError(f"--system needs a chat template: {error}") from error
        return None
    messages = [] if system is None else [{"role": "system", "content": system}]
    return [*messages, {"role": "user", "content": text}]


def _token_text(llm: LLM, token_id: int) -> str:
    if token_id >= llm.tokenizer.vocab_size:
        return ""  # logits may be padded to more tokens than there are
    return llm.tokenizer.decode([token_id], skip_special_tokens=False)


def _stream(
    llm: LLM, text: str, messages: list[dict[str, str]] | None, options: dict[str, Any]
) -> TextStream:
    if messages is None:
        return llm.stream(text, **options)
    return llm.stream_chat(messages, **options)


def _several_answers(
    llm: LLM, text: str, messages: list[dict[str, str]] | None, options: dict[str, Any]
) -> Generation:
    if messages is None:
        return llm.generate(text, **options)
    return llm.chat(messages, **options)


def _print_answer(stream: TextStream, *, live: bool) -> tuple[Generation, bool]:
    last = ""

    def write(piece: str) -> None:
        nonlocal last
        if live and piece:
            click.echo(piece, nl=False)
            last = piece

    result, interrupted = stream_answer(stream, write)
    if last and not last.endswith("\n"):
        click.echo()
    return result, interrupted


def _print_answers(generation: Generation) -> None:
    total = len(generation.answers)
    for number, answer in enumerate(generation.answers, start=1):
        click.echo(f"--- answer {number} of {total} ({answer.finish_reason})")
        click.echo(answer.text)
