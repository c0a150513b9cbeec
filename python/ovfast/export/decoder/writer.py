"""Writing an IR's .bin unit by unit, so that a killed export goes on where it was."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovfast import _core
from ovfast.errors import Error
from ovfast.export.decoder.checkpoint import Checkpoint
from ovfast.export.decoder.plan import Plan, Stored, Weight
from ovfast.export.decoder.weight_format import Codes, round_rows

__all__ = ["check_space", "write_weights"]

_STATE = "state.json"
# Numbers that a thread rounds at a time: few enough for its caches, enough to not be slowed down by
# the interpreter.
_CHUNK = 1 << 19

Show = Callable[[float, str], None]


def check_space(directory: Path, needed: int) -> None:
    """Raise Error when a file system has less than `needed` bytes free."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise Error(
            f"'{directory}' has {free / 1e6:.0f} MB free, needed are about {needed / 1e6:.0f} MB"
        )


def write_weights(
    checkpoint: Checkpoint, plan: Plan, file: Path, fingerprint: str, show: Show
) -> None:
    """Write a plan's constants to a file, from the unit on with which a killed run left off.

    How far it is stands in state.json beside the file, with `fingerprint`: another one means that
    what lies there is of something else, and is written from the beginning.

    Raises ModelError for weights that are no numbers, and OSError.
    """
    state = file.with_name(_STATE)
    begin = _finished(state, file, fingerprint)
    total = sum(unit.elements for unit in plan.units)
    before = sum(unit.elements for unit in plan.units[:begin])
    done, start = before, time.monotonic()
    with file.open("r+b" if begin else "w+b") as stream, _workers() as workers:
        descriptor = stream.fileno()
        os.ftruncate(descriptor, plan.size)
        for number, unit in enumerate(plan.units[begin:], begin):
            show(done / total, f"{unit.name}{_left(start, done - before, total - done)}")
            for weight in unit.weights:
                _write(checkpoint, weight, descriptor, workers)
            done += unit.elements
            # First the bytes, then the word that they are there.
            os.fdatasync(descriptor)
            _note(state, fingerprint, number + 1)
    show(1.0, "weights written")


def _workers() -> ThreadPoolExecutor:
    """NumPy lets go of the interpreter while it computes."""
    return ThreadPoolExecutor(max(1, _core.read_host_limits().threads))


def _write(checkpoint: Checkpoint, weight: Weight, file: int, workers: ThreadPoolExecutor) -> None:
    rows = weight.shape[0]
    step = max(2, _CHUNK // math.prod(weight.shape[1:]) // 2 * 2)  # even: see row_offset()

    def convert(first: int) -> None:
        count = min(step, rows - first)
        values = checkpoint.read_rows(weight.tensor, weight.first + first, count)
        if weight.added:
            values = values + np.float32(weight.added)
        codes = round_rows(values, weight.format, weight.tensor)
        for stored, array in _parts(weight, codes):
            _write_all(file, array, stored.row_offset(first))

    for _ in workers.map(convert, range(0, rows, step)):
        pass  # what went wrong is raised here


def _parts(weight: Weight, codes: Codes) -> Iterator[tuple[Stored, npt.NDArray[np.generic]]]:
    yield weight.values, codes.values
    if weight.scales is not None and codes.scales is not None:
        yield weight.scales, codes.scales
    if weight.zero_points is not None and codes.zero_points is not None:
        yield weight.zero_points, codes.zero_points


def _write_all(file: int, array: npt.NDArray[np.generic], offset: int) -> None:
    data = memoryview(array.tobytes())
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _finished(state: Path, file: Path, fingerprint: str) -> int:
    """Units that an earlier run finished."""
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        if content["fingerprint"] == fingerprint and file.is_file():
            return int(content["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or one that was never completed
    return 0


def _note(state: Path, fingerprint: str, finished: int) -> None:
    partial = state.with_suffix(".partial")
    partial.write_text(json.dumps({"fingerprint": fingerprint, "finished": finished}))
    partial.replace(state)


def _left(start: float, done: int, rest: int) -> str:
    """When it will be over, as far as that is known."""
    if done == 0:
        return ""
    seconds = round((time.monotonic() - start) / done * rest)
    return f", {seconds // 60}:{seconds % 60:02d} left"
