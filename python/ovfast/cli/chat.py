"""`ovfast chat`: a conversation in the terminal, or over pipes, one line a message."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ovfast.cli.conversation import Conversation
from ovfast.cli.key import key_options
from ovfast.cli.options import check_options, model_options
from ovfast.cli.prompt import LineReader
from ovfast.cli.streaming import InterruptedTwice, quiet_when_nobody_reads, stream_answer

if TYPE_CHECKING:
    from ovfast.cli.key import KeySource
    from ovfast.llm import LLM
    from ovfast.results import Generation

__all__ = ["chat_command"]

_HELP = """\
/system TEXT   set the system message (without TEXT: show it; "/system -" removes it)
/reset         forget the conversation, keep the system message
/stats         what the last answer took
/save FILE     write the conversation to FILE as JSON
/help          this list
/exit          leave; so do Ctrl+D and Ctrl+C twice
A line that ends with \\ goes on in the next one. To send a line that begins with /, double the /."""


@click.command("chat")
@click.argument("model")
@click.option("--system", metavar="TEXT", help="The system message.")
@click.option(
    "--when-full",
    type=click.Choice(["ask", "drop", "stop"]),
    default="ask",
    show_default=True,
    help="What to do when the conversation is longer than the context: ask; drop its oldest "
    "turns, and say so; or stop. Where nobody can be asked, ask means stop.",
)
@key_options()
@model_options(conversation=True)
@quiet_when_nobody_reads()
def chat_command(
    model: str,
    system: str | None,
    when_full: str,
    key: KeySource,
    engine: dict[str, Any],
    generation: dict[str, Any],
) -> None:
    """Talk to MODEL, a model directory or a GGUF file, over several turns.

    Ctrl+C ends the answer, not the program; pressed twice it leaves, and so do Ctrl+D and /exit.
    /help lists the commands. Answers go to stdout, everything else to stderr. When stdin is not a
    terminal each of its lines is a message, and the first error ends the program.

    \b
    Examples:
      ovfast chat model-dir --system "Answer in Chinese."
      ovfast chat model.gguf --temperature 0.7 --max-new-tokens 500
      printf 'Name a prime.\\nA larger one.\\n' | ovfast chat model-dir
    """
    check_options(engine, generation)
    if key.takes_stdin:
        raise click.UsageError("stdin carries the conversation: give the key in another way")

    from ovfast.llm import LLM

    with LLM(model, progress=sys.stderr.isatty(), **key.for_llm(), **engine) as llm:
        _ = llm.chat_template  # a model without one cannot chat: say so before the first message
        Chat(llm, Conversation(system), generation, when_full).loop()


def _say(text: str) -> None:
    click.echo(text, err=True)


class Chat:
    """The loop over messages and commands."""

    def __init__(
        self, llm: LLM, conversation: Conversation, options: dict[str, Any], when_full: str
    ) -> None:
        """Make a chat; `when_full` is "ask", "drop" or "stop"."""
        self._llm = llm
        self._conversation = conversation
        self._options = options
        self._interactive = sys.stdin.isatty()
        self._when_full = when_full if self._interactive or when_full != "ask" else "stop"
        self._last: Generation | None = None
        self._interrupts = 0  # Ctrl+C in a row

    def loop(self) -> None:
        """Read and answer until the user leaves or the input ends."""
        if self._interactive:
            context = self._llm.info.max_context
            _say(f"{self._llm.model_dir.name}, context {context} tokens. /help lists the commands.")
        with LineReader(self._interactive) as reader:
            while self._interrupts < 2:
                try:
                    line = reader.read()
                    if line is None:
                        break
                    self._interrupts = 0
                    if not self._take(line):
                        break
                except KeyboardInterrupt as error:
                    if not self._interactive:
                        raise
                    if reader.typed:
                        self._interrupts = 0  # it threw a line away: the user is not leaving
                    self._interrupts += 2 if isinstance(error, InterruptedTwice) else 1
                    if self._interrupts < 2:
                        _say("\n(Ctrl+C again, Ctrl+D or /exit leaves)")
        if self._interactive:
            _say("")

    def _take(self, line: str) -> bool:
        """Handle one line; False leaves."""
        command, _, argument = line.strip().partition(" ")
        if not command:
            return True
        try:
            if command.startswith("//"):
                self._answer(line.strip()[1:])
            elif command.startswith("/"):
                return self._command(command, argument.strip())
            else:
                self._answer(line)
        except (ValueError, OSError, RuntimeError) as error:
            # A person can mend what was said; a script cannot, and should not go on.
            if not self._interactive or isinstance(error, BrokenPipeError):
                raise
            _say(f"error: {error}")
        return True

    def _command(self, command: str, argument: str) -> bool:
        if command == "/exit":
            return False
        if command == "/help":
            _say(_HELP)
        elif command == "/reset":
            self._conversation.reset()
            _say("The conversation is forgotten.")
        elif command == "/system":
            if argument:
                self._conversation.system = None if argument == "-" else argument
            _say(f"System message: {self._conversation.system or 'none'}")
        elif command == "/stats":
            self._show_stats()
        elif command == "/save":
            if not argument:
                raise ValueError("/save needs the name of a file")
            self._conversation.save(argument)
            _say(f"Saved to {argument}.")
        else:
            raise ValueError(f"unknown command {command}; /help lists them")
        return True

    def _show_stats(self) -> None:
        from ovfast import _core
        from ovfast.report import format_report, report_dict

        if self._last is None:
            _say("There is no answer yet.")
            return
        memory = _core.read_process_memory()
        report = report_dict(
            self._last, self._llm.info, memory, load_seconds=self._llm.load_seconds
        )
        _say(format_report(report))

    def _answer(self, text: str) -> None:
        self._conversation.ask(text)
        try:
            generation, interrupted = self._generate()
        except BaseException:
            # The next message must not follow one that was never answered.
            self._conversation.take_back()
            raise
        if interrupted and not self._interactive:
            raise KeyboardInterrupt
        self._interrupts += interrupted
        self._last = generation
        if not generation.text:
            self._conversation.take_back()
            _say("(no answer; your message is taken back)")
            return
        self._conversation.answered(generation.text)
        self._say_why_it_ended(generation, interrupted)

    def _say_why_it_ended(self, generation: Generation, interrupted: bool) -> None:
        from ovfast.report import full_memory

        info = self._llm.info
        if interrupted:
            _say("(stopped; Ctrl+C again leaves)")
        elif generation.finish_reason == "length":
            full = full_memory(generation, info)
            if full is None:
                _say(f"(cut off after {len(generation.token_ids)} tokens, as asked for)")
            else:
                _say(f"(the {full} of {info.max_context} tokens is full: the answer is cut off)")

    def _generate(self) -> tuple[Generation, bool]:
        """Answer the conversation, after dropping turns for it where that is wanted."""
        from ovfast.errors import CapacityError

        dropped = 0
        while True:
            try:
                stream = self._llm.stream_chat(self._conversation.messages, **self._options)
                break
            except CapacityError as error:
                if not dropped and not self._may_drop(error):
                    raise
                if not self._conversation.drop_oldest():
                    raise
                dropped += 1
        if dropped:
            _say(f"(dropped the oldest {'turn' if dropped == 1 else f'{dropped} turns'})")
        ends_with_newline = True

        def write(piece: str) -> None:
            nonlocal ends_with_newline
            if piece:
                click.echo(piece, nl=False)
                ends_with_newline = piece.endswith("\n")

        try:
            return stream_answer(stream, write)
        finally:
            if not ends_with_newline:
                click.echo()

    def _may_drop(self, error: Exception) -> bool:
        if self._when_full == "drop":
            return True
        if self._when_full == "stop" or not self._conversation.turns_before_the_last:
            return False
        _say(f"The conversation has become too long: {error}")
        try:
            return click.confirm("Drop its oldest turns until it fits?", default=True, err=True)
        except click.Abort:
            return False
