"""Cutting a graph: a model that begins or ends at tensors inside of it.

It is done on OpenVINO's graph, where every framework's tensors keep their names. The frontends' own
cutting is missing or broken in most of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovfast.convert.input_options import Input, shape_text

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["cut"]

_SHOWN_NAMES = 5


def cut(model: ov.Model, inputs: Mapping[str, Input], outputs: Sequence[str]) -> ov.Model:
    """Return the part of a model between tensors.

    Args:
        model: Changed by this.
        inputs: Those that are marked `cut` become inputs; the model's own stay as far as they are
            still needed.
        outputs: Tensors that become the only outputs, in this order; empty: the model's own.

    Raises ValueError for a name that the model does not have, and for a cut without effect.
    """
    import openvino as ov

    named = _named_outputs(model)
    cuts = {name: _find(named, name) for name, options in inputs.items() if options.cut}
    # Found before anything is cut: an output may be the very tensor before a cut.
    ends = [_find(named, name) for name in outputs]
    parameters = [_begin(name, tensor, inputs[name]) for name, tensor in cuts.items()]
    if outputs:
        results = [ov.opset13.result(tensor) for tensor in ends]
        for name, tensor in zip(outputs, ends, strict=True):
            tensor.get_tensor().set_names({*tensor.get_tensor().get_names(), name})
        sinks: list[Any] = []
    else:
        results, sinks = model.get_results(), model.get_sinks()
    reached = _reached([*results, *sinks])
    kept = [p for p in model.get_parameters() if p.get_name() in reached]
    for name, parameter in zip(cuts, parameters, strict=True):
        if parameter.get_name() not in reached:
            raise ValueError(f"nothing of the model's outputs depends on '{name}': cut elsewhere")
    return ov.Model(results, sinks, [*kept, *parameters], model.get_friendly_name())


def _named_outputs(model: ov.Model) -> dict[str, Any]:
    """Tensors by their names, and by the names of their operations where that has only one."""
    named = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "Result":
            continue
        if operation.get_output_size() == 1:
            named[operation.get_friendly_name()] = operation.output(0)
    for operation in model.get_ordered_ops():
        for output in operation.outputs() if operation.get_type_name() != "Result" else ():
            for name in output.get_tensor().get_names():
                named[name] = output
    return named


def _find(named: Mapping[str, Any], name: str) -> Any:
    if name in named:
        return named[name]
    near = difflib.get_close_matches(name, named, _SHOWN_NAMES)
    near = near or [other for other in named if name in other][:_SHOWN_NAMES]
    raise ValueError(
        f"the model has no tensor or operation '{name}' to cut at; "
        + (f"similar names: {', '.join(near)}" if near else f"it has {len(named)} other names")
    )


def _begin(name: str, tensor: Any, options: Input) -> Any:
    """Put an input in the place of a tensor."""
    import openvino as ov

    node = tensor.get_node()
    if node.get_type_name() == "Parameter":
        raise ValueError(f"'{name}' is an input of the model already: --input gives it a shape")
    element_type = getattr(ov.Type, options.type) if options.type else tensor.get_element_type()
    if element_type == ov.Type.dynamic:
        raise ValueError(
            f"the type of '{name}' is not known: give it, for example --cut-input '{name}[1,3]:f32'"
        )
    shape = tensor.get_partial_shape()
    if options.shape is not None:
        shape = ov.PartialShape(shape_text(options.shape))
        if not shape.compatible(tensor.get_partial_shape()):
            raise ValueError(
                f"'{name}' has the shape {tensor.get_partial_shape()}, which {shape} does not fit"
            )
    parameter = ov.opset13.parameter(shape, element_type, name)
    names = tensor.get_tensor().get_names() | {name}
    parameter.output(0).get_tensor().set_names(names)
    for target in tensor.get_target_inputs():
        target.replace_source_output(parameter.output(0))
    return parameter


def _reached(ends: Sequence[Any]) -> set[str]:
    """Unique names of all operations that ends depend on, the ends included."""
    reached: set[str] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in reached:
            reached.add(node.get_name())
            waiting += [value.get_node() for value in node.input_values()]
    return reached
