"""Runs OpenCL kernels through pyopencl, in the environment that has it; see gpu_emulation.py."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pyopencl as cl


def run(
    source: str, options: str, entry: str, sizes: list[list[int]], arrays: list[dict[str, Any]]
) -> list[list[float]]:
    """Build a program, run one kernel; return the output arrays.

    `arrays`: dtype and shape, and the values of inputs, in the order of the kernel's arguments.
    """
    context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
    queue = cl.CommandQueue(context)
    program = cl.Program(context, source).build(options=[*options.split()])
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    values = [
        np.array(one.get("values", 0), one["dtype"]) * np.ones(one["shape"], one["dtype"])
        for one in arrays
    ]
    buffers = [cl.Buffer(context, flags, hostbuf=value) for value in values]
    kernel = cl.Kernel(program, entry)
    kernel.set_args(*buffers)
    cl.enqueue_nd_range_kernel(queue, kernel, *[size or None for size in sizes])
    results = []
    for one, value, buffer in zip(arrays, values, buffers, strict=True):
        if "values" not in one:
            cl.enqueue_copy(queue, value, buffer)
            results.append(value.astype(np.float64).ravel().tolist())
    queue.finish()
    return results


if __name__ == "__main__":
    print(json.dumps({"run": run}[sys.argv[1]](*json.load(sys.stdin))))
