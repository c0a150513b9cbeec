"""What a graph looks like from outside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["Graph", "Port", "describe", "name_ports"]

# How a frontend writes a dimension without upper bound that another one writes as "?".
_UNBOUND = re.compile(r"(\d*)\.\.2147483647")


@dataclass(frozen=True)
class Port:
    """An input or an output."""

    name: str
    """The first of its names."""
    type: str
    """Element type, for example f32."""
    shape: str
    """For example [1,3,?,224]."""
    layout: str | None
    """For example [N,C,H,W]; None where it is not known."""


@dataclass(frozen=True)
class Graph:
    """Inputs, outputs and size of a graph."""

    inputs: list[Port]
    outputs: list[Port]
    operations: int
    """Constants, inputs and outputs not counted."""


def describe(model: ov.Model) -> Graph:
    """Describe a graph."""
    uncounted = ("Constant", "Parameter", "Result")
    operations = [node for node in model.get_ordered_ops() if node.get_type_name() not in uncounted]
    return Graph(
        [_port(port) for port in model.inputs],
        [_port(port) for port in model.outputs],
        len(operations),
    )


def name_ports(model: ov.Model) -> None:
    """Give inputs and outputs without a name that of their operation."""
    for port in (*model.inputs, *model.outputs):
        if not port.get_names():
            # An output is named after what computes it, not after its own node.
            node = port.get_node()
            node = node.input_value(0).get_node() if node.get_type_name() == "Result" else node
            port.get_tensor().set_names({node.get_friendly_name()})


def _port(port: Any) -> Port:
    from openvino import layout_helpers

    layout = layout_helpers.get_layout(port)
    return Port(
        name=port.get_any_name(),
        type=port.get_element_type().get_type_name(),
        shape=_UNBOUND.sub(
            lambda found: f"{found[1]}.." if found[1] else "?", str(port.get_partial_shape())
        ),
        layout=None if layout.empty else layout.to_string(),
    )
