"""What several parts want to know of an `openvino.Model`."""

from __future__ import annotations

from typing import Any

__all__ = ["constant_nodes"]


def constant_nodes(model: Any) -> set[str]:
    """Unique names of the nodes that depend on constants alone, and so do not change."""
    found: set[str] = set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        sources = [value.get_node().get_name() for value in node.input_values()]
        # The KV cache begins as a constant.
        computed = bool(sources) and kind != "ReadValue" and found.issuperset(sources)
        if kind == "Constant" or computed:
            found.add(node.get_name())
    return found
