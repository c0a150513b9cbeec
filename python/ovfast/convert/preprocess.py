"""Steps on the input data, put into the graph by OpenVINO's PrePostProcessor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovfast.convert.frontend import reason
from ovfast.convert.input_options import Input, shape_text
from ovfast.errors import ModelError

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["match_inputs", "preprocess", "reshape"]


def match_inputs(model: ov.Model, inputs: Mapping[str, Input]) -> dict[str, Input]:
    """Give every option the first name of the model's input that it is for.

    The name "" stands for the only input. Raises ValueError when an input is not there, has two
    sets of options, or is not the only one.
    """
    ports = {name: port for port in model.inputs for name in port.get_names()}
    known = ", ".join(port.get_any_name() for port in model.inputs)
    matched: dict[str, Input] = {}
    for name, options in inputs.items():
        if name == "" and len(model.inputs) != 1:
            raise ValueError(
                f"the model has {len(model.inputs)} inputs, so each option must name one: {known}"
            )
        port = model.input(0) if name == "" else ports.get(name)
        if port is None:
            raise ValueError(
                f"the model has no input '{name}': it has {known or 'none'} (a tensor inside of "
                "the model becomes an input with --cut-input)"
            )
        if port.get_any_name() in matched:
            raise ValueError(f"two sets of options for the input '{port.get_any_name()}'")
        matched[port.get_any_name()] = options
    return matched


def reshape(model: ov.Model, inputs: Mapping[str, Input]) -> None:
    """Set the shapes. Raises ModelError when the model cannot take them."""
    import openvino as ov

    shapes = {
        name: ov.PartialShape(shape_text(options.shape))
        for name, options in inputs.items()
        if options.shape is not None
    }
    if not shapes:
        return
    wanted = ", ".join(f"{name}{shape}" for name, shape in shapes.items())
    try:
        model.reshape(shapes)
    except Exception as error:
        raise ModelError(f"the model cannot take the shape {wanted}: {reason(error)}") from error


def preprocess(model: ov.Model, inputs: Mapping[str, Input]) -> ov.Model:
    """Set layouts and fold the steps of `inputs` into the graph.

    Raises ValueError when they do not fit the model's inputs.
    """
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    for name, options in inputs.items():
        port = model.input(name)
        _check(name, port, options)
        if options.layout:
            port.get_node().set_layout(ov.Layout(options.layout))
    if not any(options.preprocessed for options in inputs.values()):
        return model
    processor = PrePostProcessor(model)
    for name, options in inputs.items():
        if options.preprocessed:
            _add(processor.input(name), model.input(name).get_element_type(), options)
    try:
        return processor.build()
    except Exception as error:
        raise ValueError(f"the steps on the input do not fit the model: {reason(error)}") from error


def _add(info: Any, model_type: Any, options: Input) -> None:
    import openvino as ov
    from openvino.preprocess import ResizeAlgorithm

    tensor, steps = info.tensor(), info.preprocess()
    if options.layout:
        info.model().set_layout(ov.Layout(options.layout))
        tensor.set_layout(ov.Layout(options.data_layout or options.layout))
    if options.data_type:
        # Not ov.Type("u8"): that reads NumPy's names, where u8 has eight bytes.
        tensor.set_element_type(getattr(ov.Type, options.data_type))
        steps.convert_element_type(model_type)
    if options.resize:
        tensor.set_spatial_dynamic_shape()
        steps.resize(getattr(ResizeAlgorithm, f"RESIZE_{options.resize.upper()}"))
    if options.reverse_channels:
        steps.reverse_channels()
    for step, values in ((steps.mean, options.means), (steps.scale, options.scales)):
        if values:
            step(values if len(values) > 1 else values[0])


def _check(name: str, port: Any, options: Input) -> None:
    import openvino as ov

    shape = port.get_partial_shape()
    letters = options.layout or ""
    if letters and "..." not in letters and shape.rank.is_static and len(shape) != len(letters):
        raise ValueError(
            f"the layout {letters} has {len(letters)} dimensions, the input '{name}' has "
            f"{len(shape)}: {shape}"
        )
    floating = (ov.Type.f32, ov.Type.f16, ov.Type.bf16, ov.Type.f64)
    arithmetic = bool(options.means or options.scales)
    if arithmetic and port.get_element_type() not in floating:
        raise ValueError(
            f"mean and scale need an input of floating point, '{name}' is "
            f"{port.get_element_type().get_type_name()}"
        )
    if "..." in letters or not shape.rank.is_static:
        return
    if options.resize and any(shape[letters.index(letter)].is_dynamic for letter in "HW"):
        raise ValueError(
            f"resizing needs a fixed height and width, the input '{name}' has the shape {shape}: "
            "give it with --input"
        )
    for what, values in (("mean", options.means), ("scale", options.scales)):
        if len(values) > 1 and not shape[letters.index("C")].compatible(ov.Dimension(len(values))):
            raise ValueError(
                f"the {what} has {len(values)} values, the input '{name}' has "
                f"{shape[letters.index('C')]} channels"
            )
