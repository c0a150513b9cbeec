"""Which code computes fake quantization on a CPU while training."""

from __future__ import annotations

import types

__all__ = ["use_torch_operations"]


def use_torch_operations() -> None:
    """Let NNCF compute fake quantization with torch's operations instead of compiling a kernel.

    NNCF compiles one when it is first used: it needs a C++ compiler, takes about a minute, gives
    up after 60 seconds on a slow machine, and a process that is killed meanwhile leaves a lock on
    which all later ones wait. For low-rank adapters it uses torch.compile, again with a compiler,
    anew for each shape. Without a compiler NNCF falls back to these very operations. They give the
    same numbers; a training step of a small convolutional network takes a quarter longer with them.
    What was compiled already stays.
    """
    from nncf.torch.quantization import extensions
    from nncf.torch.quantization.reference import torch_backward, torch_executor, torch_forward

    kernel = extensions.QuantizedFunctionsCPU
    if kernel._loaded_namespace is None:
        kernel._loaded_namespace = types.SimpleNamespace(
            Quantize_forward=torch_executor.forward, Quantize_backward=torch_executor.backward
        )
    for function in (torch_forward, torch_backward):
        if function._compiled_func is None:
            function._compiled_func = function._func
