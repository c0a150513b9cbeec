"""From a source to OpenVINO's graph, through OpenVINO's own frontends.

They are called directly: `openvino.convert_model` cannot cut a model, and reports its use over the
network unless the user has said no.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovfast.convert import torch_source
from ovfast.convert.input_options import Input, shape_text
from ovfast.convert.source import FRAMEWORKS, Source
from ovfast.errors import ModelError
from ovfast.export.stderr import HeldStderr

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["finish", "read_graph", "reason", "unconverted"]

_LONGEST_REASON = 600
# How the frontends say where in their sources a check failed.
_NOISE = re.compile(
    r"Check '[^\n]*?' failed at \S+:\d+:|Exception from \S+:\d+:|FrontEnd API failed with \w+:"
    r"|Model wasn't fully converted\.|Failed operations detailed log:"
)
# What is printed, not thrown, about a file that is no protobuf.
_KNOWN_NOISE = (b"WARNING: All log messages before absl", b"E0000 ")
_EXTERNAL = re.compile(r"externally stored data in file \((.+?), offset")
_NO_RULE = re.compile(r"No conversion rule found for operations: (.+)")
_FAILED = re.compile(r"Conversion is failed for: (.+)")
_ONNX_TYPE = "ONNX_META_type"


def read_graph(
    source: Source, inputs: Mapping[str, Input], example: Any, *, partly: bool
) -> tuple[ov.Model, Any]:
    """Convert a source.

    Returns the graph and what must be kept as long as it holds operations that were not converted:
    they point into it.

    Args:
        source: What to read; of PyTorch a resolved one.
        inputs: Shapes of inputs; names that are none of the model's are passed over, since some
            names come into being by the conversion only.
        example: Example input of a PyTorch module, to trace it with.
        partly: Leave operations that cannot be converted in the graph; see `unconverted`.

    Raises ModelError.
    """
    from openvino.frontend import FrontEndManager

    what = f"'{source.name}' cannot be read as {FRAMEWORKS[source.framework]}"
    # Of PyTorch a graph in Python, which must live until it is converted.
    loaded: Any = str(source.path)
    if source.framework == "pytorch":
        loaded = torch_source.decode(source, example)
    frontend = FrontEndManager().load_by_framework(source.framework)
    try:
        with HeldStderr(*_KNOWN_NOISE):
            input_model = frontend.load(loaded)
        exported = source.framework == "pytorch" and torch_source.is_exported(source.object)
        if source.framework == "pytorch" and not exported:
            torch_source.describe_inputs(input_model, example)
        if source.framework != "ir":
            _set_shapes(input_model, inputs, fixed=exported)
    except ModelError:
        raise
    except Exception as error:
        if missing := _EXTERNAL.search(str(error)):
            raise ModelError(
                f"'{source.name}' keeps weights in the file '{missing[1]}', which is not beside it"
            ) from error
        raise ModelError(f"{what}: {reason(error)}") from error
    try:
        # An IR is OpenVINO's already: its frontend knows no parts.
        partly = partly and source.framework != "ir"
        convert = frontend.convert_partially if partly else frontend.convert
        model = convert(input_model)
    except Exception as error:
        raise _not_converted(source, inputs, error) from error
    if not model.outputs:
        raise ModelError(f"{what}: it has no outputs")
    return model, input_model


def unconverted(model: ov.Model) -> list[str]:
    """Return what operations are left in the graph that could not be converted.

    Types of ONNX; of other frameworks, which do not tell them, the names of the operations.
    """
    left = set()
    for operation in model.get_ordered_ops():
        if operation.get_type_name().endswith("FrameworkNode"):
            name = operation.get_friendly_name()
            left.add(str(operation.get_attributes().get(_ONNX_TYPE, name)))
    return sorted(left)


def finish(model: ov.Model) -> None:
    """Simplify the graph, as `openvino.convert_model` does, without changing what it computes."""
    # Not public, and yet what OpenVINO's own converter and NNCF call.
    from openvino._offline_transformations import (
        apply_moc_transformations,
        compress_quantize_weights_transformation,
    )

    apply_moc_transformations(model, cf=False, smart_reshape=True)
    compress_quantize_weights_transformation(model)


def reason(error: Exception) -> str:
    """Return what a message of OpenVINO says, without where in its sources it comes from."""
    told = " ".join(_NOISE.sub(" ", str(error).split("Summary:\n--")[0]).split())
    told = told or " ".join(str(error).split()) or type(error).__name__
    return told if len(told) <= _LONGEST_REASON else told[:_LONGEST_REASON] + " ..."


def _set_shapes(input_model: Any, inputs: Mapping[str, Input], *, fixed: bool) -> None:
    """Set shapes ahead of the conversion, which some operations need to be converted at all.

    Raises ModelError for sizes other than those of a model where they are `fixed`.
    """
    from openvino import PartialShape

    places = input_model.get_inputs()
    for place in places:
        names = place.get_names() if len(places) > 1 else [*place.get_names(), ""]
        for options in (inputs[name] for name in names if name in inputs):
            if options.shape is None or options.cut:
                continue
            shape, there = (
                PartialShape(shape_text(options.shape)),
                input_model.get_partial_shape(place),
            )
            if not shape.rank.compatible(there.rank):
                raise ModelError(
                    f"the input '{place.get_names()[0]}' has the shape {there}, which has another "
                    f"number of dimensions than {shape}"
                )
            if fixed and not shape.compatible(there):
                raise ModelError(
                    f"the program was exported for the shape {there}, which {shape} does not fit: "
                    "export it with dynamic_shapes"
                )
            input_model.set_partial_shape(place, shape)


def _not_converted(source: Source, inputs: Mapping[str, Input], error: Exception) -> ModelError:
    no_rule, failed = (pattern.search(str(error)) for pattern in (_NO_RULE, _FAILED))
    if no_rule:
        return ModelError(
            f"'{source.name}' holds operators that OpenVINO cannot convert: {no_rule[1].strip()}. "
            "Replace them, or cut the model so that they stay outside "
            "(--cut-output NAME, --cut-input NAME)"
        )
    shaped = any(options.shape is not None for options in inputs.values())
    advice = (
        "Do the shapes that were given fit the model?"
        if shaped
        else "Shapes may help: --input NAME[SHAPE]"
    )
    what = (
        f"operators of '{source.name}' cannot be converted: {failed[1].strip()}"
        if failed
        else f"'{source.name}' cannot be converted"
    )
    return ModelError(f"{what}: {reason(error).rstrip('.')}. {advice}")
