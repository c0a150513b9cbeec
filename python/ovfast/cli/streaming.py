"""Printing an answer while it is generated, so that Ctrl+C ends the answer and loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ovfast.llm import TextStream
    from ovfast.results import Generation

__all__ = ["InterruptedTwice", "quiet_when_nobody_reads", "stream_answer"]

_EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports of other programs then


class InterruptedTwice(KeyboardInterrupt):
    """Ctrl+C once more while an answer that it ended was still ending."""


def stream_answer(stream: TextStream, write: Callable[[str], None]) -> tuple[Generation, bool]:
    """Hand each piece to `write` as it comes; return the generation and if Ctrl+C ended it.

    The first Ctrl+C cancels the request, which ends at its next step with what it has; a second
    one raises InterruptedTwice. When `write` fails, the request is cancelled too.
    """
    with _cancelled_by_interrupt(stream) as interrupted:
        try:
            for piece in stream:
                write(piece)
        except BaseException:
            stream.cancel()
            raise
    return stream.result, interrupted.is_set()


@contextmanager
def quiet_when_nobody_reads() -> Iterator[None]:
    """End quietly when the reader of a pipe has gone, as in `ovfast run ... | head -1`."""
    try:
        yield
    except BrokenPipeError:
        # What is still buffered has nowhere to go, and Python would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(_EXIT_BROKEN_PIPE) from None


@contextmanager
def _cancelled_by_interrupt(stream: TextStream) -> Iterator[threading.Event]:
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread gets signals
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise InterruptedTwice
        interrupted.set()
        stream.cancel()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
