"""ovfast's operations, for OpenVINO's own Python API.

Those on packed weights are the CPU's: ``core.add_extension(str(library_path()))`` is all that a
program needs to read and run a directory with packed weights; it need not import ovfast for it.
SwiGLU, AddRMSNorm and Int4MatMul run on GPUs, too, where ``register(core)`` also tells the plugin of
their OpenCL kernels.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovfast import _core

__all__ = [
    "kernel_calls",
    "kernel_config",
    "library_path",
    "operations",
    "register",
    "supported_isas",
]


def library_path() -> Path:
    """Return the path of libovfast_ops.so, an OpenVINO extension."""
    build = importlib.import_module("ovfast._build")
    assert build.__file__ is not None
    return Path(build.__file__).parent / "lib" / "libovfast_ops.so"


def kernel_config() -> Path:
    """Return the path of the XML that tells OpenVINO's GPU plugin of ovfast's OpenCL kernels."""
    return library_path().parent.parent / "opencl" / "ovfast_ops.xml"


def register(core: Any, *, gpu: bool = True, kernels: Sequence[str | Path] = ()) -> None:
    """Let an ``openvino.Core`` read and run models with ovfast's operations.

    Args:
        core: The core. Models that it reads from ONNX, PyTorch and TensorFlow may have the
            operations, too (docs/custom-ops.md).
        gpu: Where OpenVINO sees a GPU, set its property CONFIG_FILE to the OpenCL kernels, in place
            of what was set before. Finding out takes a moment; models for the CPU need it not.
        kernels: XML files of kernels of your own, which the GPU gets as well: the property holds one
            file. Their operations are yours to add (``core.add_extension``).

    Raises ModelError for kernels of ovfast that are missing or damaged, as ``register_ops`` in C++
    does, and for an XML file of your own that is at fault.
    """
    core.add_extension(str(library_path()))
    if not gpu:
        return
    from ovfast.kernels import joined

    config = joined([kernel_config(), *kernels]) if kernels else kernel_config()
    try:
        present = bool(core.get_property("GPU", "AVAILABLE_DEVICES"))
    except RuntimeError:
        present = False
    if present:
        _core.check_kernel_files(kernel_config().parent)
        core.set_property("GPU", {"CONFIG_FILE": str(config)})


def operations() -> list[str]:
    """Return the types of all operations that ovfast has: 'FullyConnected', 'SwiGLU', ..."""
    return _core.operation_names()


def supported_isas() -> list[str]:
    """Return the instruction sets that kernels exist for and this machine can run.

    Out of 'scalar', 'avx2', 'avx_vnni', 'avx512_vnni' and 'amx'; the environment variable
    OVFAST_FORCE_ISA takes one of them.
    """
    return _core.supported_isas()


def kernel_calls() -> dict[str, int]:
    """Return how often each kernel ran in this process: which path was taken."""
    return dict(_core.kernel_calls())
