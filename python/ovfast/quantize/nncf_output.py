"""NNCF's tables and progress bars where ours are: on stderr, or nowhere."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

__all__ = ["nncf_output"]


@contextlib.contextmanager
def nncf_output(progress: bool) -> Iterator[None]:
    """Show NNCF's table and bars on stderr inside of the block; without `progress` only warnings.

    NNCF prints to stdout, which is for results. The settings are the process's own.
    """
    import rich
    from nncf.common.logging.logger import nncf_logger

    console = rich.get_console()
    was_quiet, level = console.quiet, nncf_logger.level
    streams = [
        (handler, handler.setStream(sys.stderr))
        for handler in nncf_logger.handlers
        if isinstance(handler, logging.StreamHandler)
    ]
    console.quiet = not progress
    nncf_logger.setLevel(logging.INFO if progress else logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        console.quiet = was_quiet
        nncf_logger.setLevel(level)
        for handler, stream in streams:
            if stream is not None:
                handler.setStream(stream)
