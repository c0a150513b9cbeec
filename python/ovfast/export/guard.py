"""Runs a script, or `-m` a module, in a process that ends when the one that started it does.

It is run by its path, also by interpreters that have no ovfast: only the standard library is used.
The starter holds the other end of our standard input, which closes however it ends, and made us
the leader of a process group, which takes the children of the script with it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_starter() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when we end
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Run what the arguments name."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    if sys.argv[1] == "-m":
        sys.argv = sys.argv[2:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
