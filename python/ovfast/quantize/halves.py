"""Where f16 weights are held while a model is quantized: in files that are mapped, not in memory.

Pages of a mapped file that nobody reads need no memory: the system writes them out when it is short
of it, and they do not count as the process's own. So a model is expanded in a fraction of its size.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import Error

__all__ = ["HALVES_SUFFIX", "Halves", "as_constant", "empty_halves", "let_go"]

HALVES_SUFFIX = "/f16"
"""What the names of constants end with that hold weights expanded to f16."""

Halves = npt.NDArray[np.float16]

# Smaller ones are not worth a file.
_LEAST_BYTES = 1 << 20


def empty_halves(shape: Sequence[int], scratch: Path | None) -> Halves:
    """Return an f16 array of this shape, in a nameless file in the folder `scratch` if it is large.

    Raises Error when there is no space for it.
    """
    count = math.prod(shape)
    if scratch is None or 2 * count < _LEAST_BYTES:
        return np.empty(shape, np.float16)
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            # Without the blocks a full disk would show as a signal at the first write.
            os.posix_fallocate(file.fileno(), 0, 2 * count)
            mapping = mmap.mmap(file.fileno(), 2 * count)
    except OSError as error:
        raise Error(
            f"cannot hold {2 * count / 1e6:.0f} MB of weights in '{scratch}': {error.strerror}"
        ) from error
    return np.frombuffer(mapping, np.float16).reshape(shape)


def as_constant(values: Halves, name: str) -> Any:
    """Make the Constant of the weight `name`; it goes on using `values`, whose pages are let go."""
    from openvino import opset13 as ops

    let_go(values)
    constant = ops.constant(values, shared_memory=True)
    constant.set_friendly_name(name + HALVES_SUFFIX)
    return constant


def let_go(values: npt.NDArray[Any]) -> None:
    """Let the system have the pages of an array that lies in a mapped file, and read them again.

    Nothing happens to arrays in memory.
    """
    begin = -(-values.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (values.ctypes.data + values.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin and _is_of_file(begin, end):
        # Only advice: if it fails, more memory is used.
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _is_of_file(begin: int, end: int) -> bool:
    """Whether addresses are those of a mapping whose pages are the file's own: shared or read-only.

    All others would come back as zeros, or as the file was before it was written to.
    """
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        for line in maps:
            addresses, rights, _, _, inode, *_ = line.split()
            first, last = (int(address, 16) for address in addresses.split("-"))
            if first <= begin < last:
                return end <= last and inode != "0" and ("s" in rights or "w" not in rights)
    return False
