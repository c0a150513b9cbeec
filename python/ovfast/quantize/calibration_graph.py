"""The form of a graph in which it is calibrated, and the way back."""

from __future__ import annotations

from typing import Any

from ovfast.evaluate.logits import keep_all_positions

__all__ = ["close_after_calibration", "open_for_calibration"]

_KEPT = "ovfast/kept/"


def open_for_calibration(model: Any) -> None:
    """Prepare an `openvino.Model`, in place.

    Every position of a text reaches all layers. Graphs from GGUF go on with the last position only
    before the last layer's MLP: that and the lm_head would see one row a text. What such a graph
    computed there hangs on a result meanwhile.
    """
    from openvino import opset13 as ops

    before = {
        node.get_friendly_name(): (node, node.input_value(1))
        for node in model.get_ops()
        if node.get_type_name() == "Gather"
    }
    keep_all_positions(model)
    for name, (node, index) in before.items():
        if node.input_value(1).get_node().get_name() != index.get_node().get_name():
            kept = ops.result(index)
            kept.set_friendly_name(_KEPT + name)
            model.add_results([kept])


def close_after_calibration(model: Any) -> None:
    """Undo `open_for_calibration`, on the same graph or what became of it."""
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    for kept in list(model.get_results()):
        name = kept.get_friendly_name()
        if name.startswith(_KEPT):
            nodes[name.removeprefix(_KEPT)].input(1).replace_source_output(kept.input_value(0))
            model.remove_result(kept)
    model.validate_nodes_and_infer_types()
