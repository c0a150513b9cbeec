"""Compiling OpenCL kernels without OpenVINO, to hear what the compiler says.

The GPU plugin's release keeps the build log to itself: a kernel with an error only gives
CL_BUILD_PROGRAM_FAILURE.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from ovfast.errors import Error
from ovfast.kernels import KernelLayer

__all__ = ["build_log", "kernel_source"]

_GPU = 1 << 2
_BUILD_LOG = 0x1183
_TYPE_NAMES = {"f32": "float", "f16": "half", "bf16": "float", "u8": "uchar", "i8": "char"}
_TYPE_NAMES |= {"i32": "int", "i64": "int"}


def kernel_source(
    layer: KernelLayer,
    inputs: Sequence[tuple[str, Sequence[int]]],
    outputs: Sequence[tuple[str, Sequence[int]]],
    attributes: Mapping[str, object] | None = None,
) -> str:
    """Return the source as the GPU plugin would hand it to the compiler.

    Args:
        layer: The kernel.
        inputs: Type and shape of each input, ('f32', (2, 3)); ranks 1 to 4, dense.
        outputs: The same of each output.
        attributes: Of the operation; those that are missing have the XML's default.
    """
    values = dict(attributes or {})
    lines = [f"#define NUM_INPUTS {len(inputs)}"]
    if any(kind == "f16" for kind, _ in (*inputs, *outputs)):
        lines.append("#pragma OPENCL EXTENSION cl_khr_fp16 : enable")
    for name, tensors in (("INPUT", inputs), ("OUTPUT", outputs)):
        for i, (kind, shape) in enumerate(tensors):
            dims = [*shape, *[1] * (4 - len(shape))]
            pitches = [1] * 4
            for axis in (2, 1, 0):
                pitches[axis] = pitches[axis + 1] * dims[axis + 1]
            for macro, numbers in (("DIMS", dims), ("PITCHES", pitches)):
                text = ",".join(str(number) for number in numbers)
                lines.append(f"#define {name}{i}_{macro} (long []){{ {text}, }}")
            lines.append(f"#define {name}{i}_TYPE {_TYPE_NAMES[kind]}")
            lines.append(f"#define {name}{i}_OFFSET 0")
    for define in layer.defines:
        lines.append(f"#define {define.name} {values.get(define.attribute, define.default)}")
    return "\n".join([*lines, layer.source(), ""])


def build_log(source: str, options: str = "") -> str | None:
    """Compile a program for the first GPU; return None, or the compiler's messages if it fails.

    Raises Error when there is no OpenCL loader or no GPU that it knows.
    """
    try:
        opencl = ctypes.CDLL("libOpenCL.so.1")
    except OSError as error:
        raise Error(f"there is no OpenCL loader: {error}") from error
    opencl.clCreateContext.restype = ctypes.c_void_p
    opencl.clCreateProgramWithSource.restype = ctypes.c_void_p
    device = _first_gpu(opencl)
    status = ctypes.c_int()
    context = opencl.clCreateContext(
        None, 1, ctypes.byref(device), None, None, ctypes.byref(status)
    )
    _require(status.value, "make a context")
    text = ctypes.c_char_p(source.encode())
    program = opencl.clCreateProgramWithSource(
        ctypes.c_void_p(context), 1, ctypes.byref(text), None, ctypes.byref(status)
    )
    _require(status.value, "make a program")
    try:
        failed = opencl.clBuildProgram(
            ctypes.c_void_p(program), 1, ctypes.byref(device), options.encode(), None, None
        )
        return _log(opencl, program, device) if failed else None
    finally:
        opencl.clReleaseProgram(ctypes.c_void_p(program))
        opencl.clReleaseContext(ctypes.c_void_p(context))


def _first_gpu(opencl: ctypes.CDLL) -> ctypes.c_void_p:
    count = ctypes.c_uint()
    if opencl.clGetPlatformIDs(0, None, ctypes.byref(count)) != 0 or count.value == 0:
        raise Error("OpenCL finds no platform: the driver of the GPU is missing")
    platforms = (ctypes.c_void_p * count.value)()
    opencl.clGetPlatformIDs(count, platforms, None)
    device = ctypes.c_void_p()
    for platform in platforms:
        found = opencl.clGetDeviceIDs(
            ctypes.c_void_p(platform), ctypes.c_ulong(_GPU), 1, ctypes.byref(device), None
        )
        if found == 0:
            return device
    raise Error("OpenCL finds no GPU on its platforms")


def _log(opencl: ctypes.CDLL, program: int, device: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    arguments = (ctypes.c_void_p(program), device, ctypes.c_uint(_BUILD_LOG))
    opencl.clGetProgramBuildInfo(*arguments, ctypes.c_size_t(0), None, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(1, size.value))
    opencl.clGetProgramBuildInfo(*arguments, size, text, None)
    return text.value.decode("utf-8", "replace").strip() or "the compiler gave no message"


def _require(status: int, what: str) -> None:
    if status != 0:
        raise Error(f"OpenCL cannot {what}: error {status}")
