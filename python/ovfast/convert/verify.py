"""One inference of what was written against the framework's own runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast.convert.graph import Port
from ovfast.convert.input_options import Input
from ovfast.convert.runtimes import require_runtime, run
from ovfast.convert.source import Source
from ovfast.errors import Error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Verification", "prepare", "verify"]

# Of the largest value: f16 keeps 11 bits, and the errors of some hundred layers add up.
_TOLERANCE = {True: 2e-2, False: 1e-3}
# Outputs below this are compared with it: a sigmoid's error is that of numbers near 1.
_SMALLEST = 1e-3
# Sizes of open dimensions: the first is mostly the batch.
_FIRST, _OTHER = 1, 64


@dataclass(frozen=True)
class Verification:
    """How far the written model's outputs are from the framework's."""

    runtime: str
    """What it was compared with."""
    difference: float
    """Largest difference of an element, in shares of the largest value of its output, which counts
    as 0.001 where it is smaller."""
    tolerance: float


def verify(
    xml: Path,
    source: Source,
    ports: list[Port],
    inputs: Mapping[str, Input],
    example: Any,
    *,
    fp16: bool,
) -> Verification:
    """Run the written model and the original on the same data.

    The original gets the data after the steps of `inputs`, computed by NumPy. The data is random
    from 0 to 1; of integers 0 and 1, of u8 up to 255; open dimensions are 1 at the beginning of a
    shape, else 64.

    Args:
        xml: The written model.
        source: The original.
        ports: The inputs of the original.
        inputs: Options by the name of the input.
        example: Arrays by name, as the written model takes them, instead of random ones. Of PyTorch
            the example input of the module, which is used where no steps precede it.
        fp16: The weights were rounded to f16.

    Raises Error when outputs differ by more than 2 % (f16) or 0.1 % of their largest value, and
    when one of the two cannot run; ValueError when the example does not fit.
    """
    import numpy as np
    import openvino as ov

    runtime = require_runtime(source.framework)
    compiled = ov.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    types = {port.get_any_name(): port.get_element_type() for port in compiled.inputs}
    given = _examples(source, list(types), example)
    random = np.random.default_rng(0)
    data: dict[str, NDArray[Any]] = {}
    prepared: dict[str, NDArray[Any]] = {}
    for port in ports:
        options = inputs.get(port.name, Input())
        array = given.get(port.name)
        if array is None or (source.framework == "pytorch" and options.preprocessed):
            shape = _sizes(port) if array is None else list(array.shape)
            array = _random(random, shape, types[port.name], options)
        data[port.name], prepared[port.name] = array, prepare(array, options)
    try:
        expected = run(source, prepared, compiled.outputs, by_name=isinstance(example, Mapping))
        computed = [np.asarray(value) for value in compiled(data).values()]
    except Exception as error:
        shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in data.items())
        raise Error(
            f"verify could not run the model on {shapes}: {error}. Shapes (--input) or an example "
            "that fits may help"
        ) from error
    if len(expected) != len(computed):
        raise Error(f"{runtime} gives {len(expected)} outputs, the converted model {len(computed)}")
    largest = 0.0
    for output, ours, theirs in zip(compiled.outputs, computed, expected, strict=True):
        difference = _difference(ours, theirs)
        if not difference <= _TOLERANCE[fp16]:
            raise Error(
                f"output '{output.get_any_name()}' differs from {runtime} by {difference:.2g} of "
                f"its largest value, more than {_TOLERANCE[fp16]:g}; nothing was written"
                + (" (--no-fp16 keeps the weights exact)" if fp16 else "")
            )
        largest = max(largest, difference)
    return Verification(runtime, largest, _TOLERANCE[fp16])


def prepare(data: NDArray[Any], options: Input) -> NDArray[Any]:
    """Apply the steps of an input but resizing, in NumPy, as the written model does."""
    import numpy as np

    layout = options.layout or ""
    if options.data_type or options.means or options.scales:
        data = data.astype(np.float32)
    if options.data_layout:
        data = data.transpose([options.data_layout.index(letter) for letter in layout])
    # Counted from the end where the layout begins with any number of dimensions.
    channel = layout.replace("...", "").find("C")
    if layout.startswith("..."):
        channel -= len(layout) - len("...")
    if options.reverse_channels:
        data = np.flip(data, channel)
    for values, apply in ((options.means, np.subtract), (options.scales, np.divide)):
        if values:
            shape = [1] * data.ndim
            if len(values) > 1:
                shape[channel] = len(values)
            data = apply(data, np.array(values, np.float32).reshape(shape))
    return np.ascontiguousarray(data)


def _examples(source: Source, names: list[str], example: Any) -> dict[str, Any]:
    import numpy as np

    if source.framework == "pytorch" and not isinstance(example, Mapping):
        from ovfast.convert.torch_source import leaves

        tensors = leaves(example)
        example = dict(zip(names, tensors, strict=False)) if tensors else None
    if example is None:
        return {}
    given = {name: np.asarray(array) for name, array in dict(example).items()}
    if set(given) != set(names):
        raise ValueError(
            f"the example must hold arrays for {', '.join(sorted(names))}, got {', '.join(given) or 'none'}"
        )
    return given


def _sizes(port: Port) -> list[int]:
    import openvino as ov

    shape = ov.PartialShape(port.shape)
    if not shape.rank.is_static:
        raise ValueError(
            f"verify needs the number of dimensions of '{port.name}': give its shape with --input"
        )
    sizes = []
    for position, dimension in enumerate(shape):
        low, high = dimension.min_length, dimension.max_length
        wanted = max(low, _OTHER if position else _FIRST)
        sizes.append(wanted if high < 0 else min(wanted, high))
    return sizes


def _random(
    random: np.random.Generator, shape: list[int], element_type: Any, options: Input
) -> NDArray[Any]:
    """Make data as the written model takes it, of a shape in the model's layout."""
    import numpy as np
    import openvino as ov

    if options.layout and options.data_layout:
        shape = [shape[options.layout.index(letter)] for letter in options.data_layout]
    if element_type == ov.Type.u8:
        return random.integers(0, 256, shape).astype(np.uint8)
    dtype = element_type.to_dtype()
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    import numpy as np

    if ours.shape != theirs.shape:
        raise Error(f"the converted model gives shape {ours.shape}, the original {theirs.shape}")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    if not ours.size:
        return 0.0
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf")
    largest = np.max(np.abs(theirs[finite]), initial=_SMALLEST)
    return float(np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0) / largest)
