"""The form of a graph in which it is calibrated, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovfast.evaluate.logits import keep_all_positions
from ovfast.quantize.expand import weights_of

__all__ = ["close_after_calibration", "open_for_calibration"]

_KEPT, _FLAT, _BACK = "ovfast/kept/", "ovfast/flat/", "ovfast/back/"


def open_for_calibration(model: Any, *, flat: bool = False) -> int:
    """Prepare an `openvino.Model`, in place.

    Every position of a text reaches all layers. Graphs from GGUF go on with the last position only
    before the last layer's MLP: that and the lm_head would see one row a text. What such a graph
    computed there hangs on a result meanwhile.

    With `flat` matrix products get no more than three dimensions, which GPTQ insists on; returns
    how many needed that.
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
    return _flatten(model) if flat else 0


def close_after_calibration(model: Any) -> None:
    """Undo `open_for_calibration`, on the same graph or what became of it."""
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    for kept in list(model.get_results()):
        name = kept.get_friendly_name()
        if name.startswith(_KEPT):
            nodes[name.removeprefix(_KEPT)].input(1).replace_source_output(kept.input_value(0))
            model.remove_result(kept)
    for name, node in nodes.items():
        # Both reshapes pass on what comes in.
        if name.startswith((_FLAT, _BACK)):
            for taker in list(node.output(0).get_target_inputs()):
                taker.replace_source_output(node.input_value(0))
    model.validate_nodes_and_infer_types()


def _flatten(model: Any) -> int:
    from openvino import opset13 as ops

    count = 0
    for weight in weights_of(model):
        rows = weight.output.get_shape()[0]
        for product in [taker.get_node() for taker in weight.takers]:
            x = product.input_value(0)
            if product.get_type_name() != "MatMul" or len(x.get_partial_shape()) <= 3:
                continue
            name, takers = product.get_friendly_name(), product.output(0).get_target_inputs()
            leading = ops.slice(
                ops.shape_of(x), np.array([0]), np.array([-1]), np.array([1]), np.array([0])
            )
            columns = weight.output.get_shape()[1]
            flat = ops.reshape(x, np.array([1, -1, columns], np.int64), False)
            flat.set_friendly_name(_FLAT + name)
            product.input(0).replace_source_output(flat.output(0))
            back = ops.reshape(product, ops.concat([leading, np.array([rows], np.int64)], 0), False)
            back.set_friendly_name(_BACK + name)
            for taker in takers:
                taker.replace_source_output(back.output(0))
            count += 1
    model.validate_nodes_and_infer_types()
    return count
