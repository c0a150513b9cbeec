"""Whether a model is quantized already, and how."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ovfast import _core
from ovfast.errors import ModelError
from ovfast.export.manifest import read_manifest
from ovfast.model_dir import ModelDir
from ovfast.quantize.expand import Weight, compressed_weights

__all__ = ["count_formats", "describe_quantization"]

_PACKED_FORMAT = re.compile(r"u(\d) g(\d+) ")
_NNCF = b"<nncf>"  # how its parameters begin in an IR
_BITS = {"u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4", "u3": "int3", "u2": "int2"}


def describe_quantization(model: ModelDir) -> str | None:
    """Say how a model directory is quantized, such as "168 layers int4 group 128 (NNCF)".

    None when all weights are floats of 16 bits or more and there is no FakeQuantize. All of a packed
    directory is read and checked. Raises ModelError when it cannot be read.
    """
    formats = count_formats(model)
    if not formats:
        return None
    shown = ", ".join(
        f"{count} layer{'s' if count > 1 else ''} {name}" for name, count in formats.most_common()
    )
    maker = _maker(model)
    return f"{shown} ({maker})" if maker else shown


def count_formats(model: ModelDir) -> Counter[str]:
    """Count the quantized layers of a model directory by format, as "int4 group 128"."""
    import openvino as ov

    core = ov.Core()
    if model.packed:
        from ovfast.ops import register

        register(core, gpu=False)
    try:
        graph = core.read_model(model.model_xml)
    except RuntimeError as error:
        raise ModelError(f"'{model.model_xml}' cannot be read: {error}") from error
    found = Counter(_format(weight) for weight in compressed_weights(graph).values())
    fakes = sum(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())
    if fakes:
        found["with quantized activations (FakeQuantize)"] = fakes
    if model.packed:
        nodes = {node.get_friendly_name(): node for node in graph.get_ops()}
        for layer in _core.inspect_packing(model.path).layers:
            if layer.operation:
                found.update(_packed_formats(layer, nodes[layer.name].get_attributes()))
    return found


def _packed_formats(layer: _core.PackedLayer, attributes: dict[str, Any]) -> list[str]:
    """Formats of the quantized weights of one of ovfast's operations."""
    parts = layer.format.split(", ")
    columns = [attributes["columns"]] * len(parts)
    if layer.operation == "GatedMLP":
        columns[-1] = attributes["intermediate"]
    if layer.operation == "LMHead":  # two halves of one matrix of 8 bits
        parts = [parts[0].replace("u4", "u8", 1)]
    formats = []
    for part, width in zip(parts, columns, strict=False):
        match = _PACKED_FORMAT.match(part)
        if match:
            formats.append(_name(f"int{match[1]}", int(match[2]), width))
    return formats


def _name(kind: str, group: int, columns: int) -> str:
    return f"{kind} per row" if group == columns else f"{kind} group {group}"


def _format(weight: Weight) -> str:
    """What the codes behind a weight are: the largest constant that it is computed from."""
    behind = _behind(weight.output.get_node())
    constants = [node for node in behind if node.get_type_name() == "Constant"]
    codes = max(constants, key=lambda node: node.get_byte_size())
    kind = codes.get_element_type().get_type_name()
    kind = _BITS.get(kind, kind)
    if any(node.get_type_name() == "Gather" for node in behind):
        kind = f"codebook of {kind}"
    shape = list(codes.get_output_shape(0))
    # Groups have a dimension of their own.
    group = shape[-1] if len(shape) > len(weight.output.get_shape()) else 0
    return _name(kind, group, 0 if group == 0 else weight.output.get_shape()[-1])


def _behind(node: Any) -> list[Any]:
    """A node and all that it is computed from."""
    return [node, *(item for value in node.input_values() for item in _behind(value.get_node()))]


def _maker(model: ModelDir) -> str:
    manifest = read_manifest(model.path)
    if manifest is not None and manifest["source"].get("kind") == "gguf":
        steps = [step.get("name") for step in manifest.get("steps", [])]
        return "NNCF" if "quantize" in steps else "GGUF"
    return "NNCF" if _NNCF in model.model_xml.read_bytes() else ""
