"""Whether ovfast's OpenCL kernels work on the GPU at hand: each compiled, run, compared with NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import Error
from ovfast.kernels import KernelLayer, check_model, read_kernels
from ovfast.opencl import build_log, kernel_source
from ovfast.ops import kernel_config, library_path, register

__all__ = [
    "OPERATIONS",
    "Case",
    "KernelCheck",
    "Operation",
    "check",
    "check_operation",
    "require_device",
]

Array = npt.NDArray[Any]

# Of what kernels compute in f32 from inputs of that type, relative to the largest value: rounding of
# the result, and in f16 that of an exponential or root, too.
_TOLERANCE = {"f32": 2e-6, "f16": 2e-3}


@dataclass(frozen=True)
class Case:
    """One use of an operation."""

    shapes: tuple[tuple[int, ...], ...]
    """Of each input; ranks 1 to 4."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    static: bool = True
    """Run it in a graph of static shapes."""
    dynamic: bool = True
    """Run it where all dimensions are open but the last, or a single one."""


@dataclass(frozen=True)
class Operation:
    """What a check has to know of an operation: `ovfast ops new` writes one for yours."""

    name: str
    cases: tuple[Case, ...]
    expected: Callable[[Sequence[Array], Mapping[str, Any]], Sequence[Array]]
    """Inputs (as float64, but for u8) and attributes -> outputs."""
    make_inputs: Callable[[Case, np.random.Generator], list[Array]] | None = None
    """f32 or u8; normally distributed f32 without it."""
    constants: tuple[int, ...] = ()
    """Inputs that are constants in the graph."""


@dataclass(frozen=True)
class KernelCheck:
    """What came out for one operation."""

    operation: str
    passed: bool
    summary: str
    """A sentence: the largest error, or what went wrong."""
    seconds: float
    worst: dict[str, float] = field(default_factory=dict)
    """Type -> largest error relative to the largest expected value."""


def _swiglu(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> list[Array]:
    x = attributes["alpha"] * inputs[0]
    return [x / (1 + np.exp(-x)) * inputs[1]]


def _add_rms_norm(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> list[Array]:
    total = inputs[0] + inputs[1]
    mean = (total * total).mean(-1, keepdims=True)
    return [total / np.sqrt(mean + attributes["epsilon"]) * inputs[2], total]


def _small_inputs(case: Case, random: np.random.Generator) -> list[Array]:
    """So small that epsilon counts."""
    scales = (2e-3, 2e-3, 1.0)
    return [
        random.standard_normal(shape, np.float32) * np.float32(scale)
        for shape, scale in zip(case.shapes, scales, strict=True)
    ]


def _int4_matmul(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> list[Array]:
    x, packed, scales = inputs
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1).astype(np.float64)
    return [x @ ((codes - 8) * np.repeat(scales, attributes["group"], 1)).T]


def _int4_inputs(case: Case, random: np.random.Generator) -> list[Array]:
    x, codes, scales = case.shapes
    return [
        random.standard_normal(x, np.float32),
        random.integers(0, 256, codes, np.uint8),
        random.random(scales, np.float32) / 8 + np.float32(0.01),
    ]


def _int4_case(leading: tuple[int, ...], rows: int, columns: int, group: int) -> Case:
    shapes = ((*leading, columns), (rows, columns // 2), (rows, columns // group))
    # The columns of x must be known, which leaves nothing open of a vector.
    return Case(shapes, {"group": group}, dynamic=bool(leading))


_RANKS = ((3,), (5, 7), (2, 3, 17), (2, 3, 5, 7))

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "SwiGLU",
        tuple(Case((shape, shape), {"alpha": 1.702}) for shape in _RANKS),
        _swiglu,
    ),
    Operation(
        "AddRMSNorm",
        tuple(
            Case((shape, shape, shape[-1:]), {"epsilon": 3e-7}, static=False)
            for shape in (*_RANKS, (1, 2, 896))
        ),
        _add_rms_norm,
        _small_inputs,
    ),
    Operation(
        "Int4MatMul",
        (
            _int4_case((), 3, 64, 32),
            _int4_case((1,), 33, 256, 128),
            _int4_case((2, 5), 17, 96, 32),
            _int4_case((1, 2, 3), 16, 128, 64),
        ),
        _int4_matmul,
        _int4_inputs,
        constants=(1, 2),
    ),
)
"""ovfast's own operations for GPUs."""


def require_device(core: Any, device: str) -> None:
    """Raise Error when OpenVINO sees no such device."""
    found = core.available_devices
    if not any(device in (name, name.split(".")[0]) for name in found):
        hint = "; `ovfast doctor` says what is missing" if device.startswith("GPU") else ""
        raise Error(f"OpenVINO sees no {device} here, only {', '.join(found)}{hint}")


def check(device: str = "GPU", names: Sequence[str] | None = None) -> list[KernelCheck]:
    """Compile and run each of ovfast's kernels, and compare with NumPy.

    Takes some seconds. What fails is in the result, not raised.

    Args:
        device: "GPU", "GPU.1" or "CPU".
        names: Of the operations to check; None: all.

    Raises Error when OpenVINO sees no such device.
    """
    import openvino as ov

    core = ov.Core()
    require_device(core, device)
    register(core, gpu=device.startswith("GPU"))
    layers = {layer.operation: layer for layer in read_kernels(kernel_config())}
    return [
        check_operation(core, operation, layers[operation.name], library_path(), device)
        for operation in OPERATIONS
        if names is None or operation.name in names
    ]


def check_operation(
    core: Any,
    operation: Operation,
    layer: KernelLayer,
    library: Path,
    device: str = "GPU",
) -> KernelCheck:
    """Check one operation on a device, static and dynamic shapes, f32 and f16.

    On a GPU the kernel is compiled on its own first, for the compiler's messages, and the compiled
    graph has to show that the kernel runs in it.

    Args:
        core: An ``openvino.Core`` that knows the operation and, for a GPU, its kernel.
        operation: What it computes.
        layer: Its kernel.
        library: The extension that holds it.
        device: OpenVINO's name of the device.
    """
    start = time.monotonic()
    worst: dict[str, float] = {}
    try:
        if device.startswith("GPU"):  # what the plugin would not tell
            _compile_alone(operation, layer)
        runs = 0
        for kind in ("f32", "f16"):
            for case in operation.cases:
                for dynamic in (False,) * case.static + (True,) * case.dynamic:
                    error = _run(core, operation, layer, library, device, case, kind, dynamic)
                    worst[kind] = max(worst.get(kind, 0.0), error)
                    runs += 1
                    if not error <= _TOLERANCE[kind]:
                        shapes = "dynamic" if dynamic else "static"
                        raise Error(
                            f"wrong numbers: error {error:.1e} of the largest value, expected at most "
                            f"{_TOLERANCE[kind]:.0e} ({kind}, {shapes}, inputs {case.shapes}, "
                            f"{dict(case.attributes)})"
                        )
    except (Error, ValueError, RuntimeError) as error:
        seconds = time.monotonic() - start
        return KernelCheck(operation.name, False, str(error).strip(), seconds, worst)
    figures = ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items())
    summary = f"{runs} runs right on {device}; largest error {figures}"
    return KernelCheck(operation.name, True, summary, time.monotonic() - start, worst)


def _inputs(operation: Operation, case: Case) -> list[Array]:
    random = np.random.default_rng(1)
    if operation.make_inputs is not None:
        return operation.make_inputs(case, random)
    return [random.standard_normal(shape, np.float32) for shape in case.shapes]


def _compile_alone(operation: Operation, layer: KernelLayer) -> None:
    case = operation.cases[0]
    inputs = _inputs(operation, case)
    kinds = ["u8" if value.dtype == np.uint8 else "f32" for value in inputs]
    described = list(zip(kinds, (value.shape for value in inputs), strict=True))
    wide = [
        value if kind == "u8" else value.astype(float)
        for value, kind in zip(inputs, kinds, strict=True)
    ]
    outputs = [("f32", value.shape) for value in operation.expected(wide, case.attributes)]
    log = build_log(kernel_source(layer, described, outputs), layer.options)
    if log is not None:
        names = ", ".join(str(path) for path in layer.sources)
        raise Error(f"{names}: the OpenCL compiler refuses the kernel:\n{log}")


def _run(
    core: Any,
    operation: Operation,
    layer: KernelLayer,
    library: Path,
    device: str,
    case: Case,
    kind: str,
    dynamic: bool,
) -> float:
    """Return the largest error relative to the largest expected value."""
    import openvino as ov
    from openvino import opset13 as opset
    from openvino.utils.node_factory import NodeFactory

    dtype = np.float16 if kind == "f16" else np.float32
    values = [v if v.dtype == np.uint8 else v.astype(dtype) for v in _inputs(operation, case)]
    factory = NodeFactory()
    factory.add_extension(str(library))
    parameters, arguments = [], []
    for i, value in enumerate(values):
        if i in operation.constants:
            arguments.append(opset.constant(value).output(0))
            continue
        # The last dimension stays known: a kernel may have a constant for each column.
        known = [*[-1] * (value.ndim - 1), value.shape[-1] if value.ndim > 1 else -1]
        parameters.append(opset.parameter(known if dynamic else list(value.shape), dtype))
        arguments.append(parameters[-1].output(0))
    node = factory.create(operation.name, arguments, dict(case.attributes))
    outputs = [node.output(i) for i in range(node.get_output_size())]
    model = ov.Model(outputs, parameters, operation.name)
    check_model(model, [layer])
    hint = {"INFERENCE_PRECISION_HINT": kind} if device.startswith("GPU") else {}
    compiled = core.compile_model(model, device, hint)
    if device.startswith("GPU"):
        _require_kernel(compiled)
    feeds = [value for i, value in enumerate(values) if i not in operation.constants]
    results = list(compiled(feeds).values())
    wide = [value if value.dtype == np.uint8 else value.astype(np.float64) for value in values]
    error = 0.0
    for found, expected in zip(results, operation.expected(wide, case.attributes), strict=True):
        if found.shape != expected.shape:
            raise Error(f"an output has shape {found.shape}, expected {expected.shape}")
        difference = np.abs(found.astype(np.float64) - expected).max(initial=0.0)
        error = max(error, float(difference / max(1e-30, np.abs(expected).max(initial=0.0))))
        if not np.isfinite(found).all():
            error = float("inf")
    return error


def _require_kernel(compiled: Any) -> None:
    # Values come as ov.Any, whose type differs between OpenVINO's releases.
    kinds = [
        str(node.get_rt_info()["layerType"].astype(str))
        for node in compiled.get_runtime_model().get_ops()
    ]
    if "CustomGPUPrimitive" not in kinds:
        raise Error(f"the compiled graph has no CustomGPUPrimitive, only {sorted(set(kinds))}")
