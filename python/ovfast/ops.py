"""ovfast's operations on packed weights, for OpenVINO's own Python API.

``core.add_extension(str(library_path()))`` is all that a program needs to read and run a directory
with packed weights; it need not import ovfast for it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ovfast import _core

__all__ = ["kernel_calls", "library_path", "register", "supported_isas"]


def library_path() -> Path:
    """Return the path of libovfast_ops.so, an OpenVINO extension."""
    build = importlib.import_module("ovfast._build")
    assert build.__file__ is not None
    return Path(build.__file__).parent / "lib" / "libovfast_ops.so"


def register(core: Any) -> None:
    """Let an ``openvino.Core`` read and run models with ovfast's operations."""
    core.add_extension(str(library_path()))


def supported_isas() -> list[str]:
    """Return the instruction sets that kernels exist for and this machine can run.

    Out of 'scalar', 'avx2', 'avx_vnni', 'avx512_vnni' and 'amx'; the environment variable
    OVFAST_FORCE_ISA takes one of them.
    """
    return _core.supported_isas()


def kernel_calls() -> dict[str, int]:
    """Return how often each kernel ran in this process: which path was taken."""
    return dict(_core.kernel_calls())
