"""Graphs that give the logits or the last hidden states of every position of a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}


def keep_all_positions(model: ov.Model) -> int:
    """Let a graph that goes on with the last position only go on with all; how many cuts it had.

    Graphs from GGUF gather the last position before the last layer's MLP, with an index that they
    compute from the shape of input_ids. What comes after treats rows alike.
    """
    only_shape: dict[str, bool] = {}
    cuts = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        sources = [value.get_source_output().get_node().get_name() for value in node.inputs()]
        only_shape[node.get_name()] = kind in ("Constant", "ShapeOf") or (
            bool(sources) and all(only_shape[source] for source in sources)
        )
        if (
            kind == "Gather"
            and only_shape[sources[1]]
            and node.input_value(1).get_node().get_type_name() != "Constant"
            and not only_shape[sources[0]]
        ):
            cuts.append(node)
    for cut in cuts:
        count = ops.gather(ops.shape_of(cut.input_value(0)), ops.constant(0), ops.constant(0))
        every = ops.range(ops.constant(np.int64(0)), count, ops.constant(np.int64(1)), "i64")
        rows = ops.reshape(every, ops.constant(np.array([-1, 1], np.int64)), False)
        cut.input(1).replace_source_output(rows.output(0))
    if cuts:
        model.validate_nodes_and_infer_types()
    return len(cuts)


def split_lm_head(model: ov.Model) -> tuple[ov.Model, ov.Model]:
    """Split into what gives the hidden states and what makes logits [rows, vocabulary] of them."""
    head = model.output("logits").get_node().input_value(0).get_node()
    while head.get_type_name() not in ("MatMul", "FullyConnected"):
        head = head.input_value(0).get_node()
    states = head.input_value(0)
    width = states.get_partial_shape()[states.get_partial_shape().rank.get_length() - 1]
    hidden = ov.Model([ops.result(states)], model.get_sinks(), model.get_parameters(), "hidden")
    rows = ops.parameter(ov.PartialShape([-1, width]), states.get_element_type())
    head.input(0).replace_source_output(rows.output(0))
    head.validate_and_infer_types()
    return hidden, ov.Model([ops.result(head.output(0))], [rows], "lm_head")


class Prefill:
    """A stateful graph that answers one prompt at a time with all of its rows."""

    def __init__(self, model: ov.Model, properties: dict[str, str], core: ov.Core) -> None:
        self._inputs = {port.get_any_name() for port in model.inputs}
        self._request = core.compile_model(model, "CPU", properties).create_infer_request()

    def __call__(self, ids: list[int], chunk: int | None = None) -> np.ndarray:
        """Compute f32 [len(ids), width], `chunk` rows an inference (all at once by default)."""
        self._request.reset_state()
        chunk = chunk or len(ids)
        parts = [self._infer(ids[at : at + chunk], at) for at in range(0, len(ids), chunk)]
        return np.concatenate(parts)

    def _infer(self, ids: list[int], past: int) -> np.ndarray:
        total = past + len(ids)
        values = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._request.infer({name: values[name] for name in self._inputs})
        data = self._request.get_output_tensor(0).data
        rows = data.reshape(-1, data.shape[-1])
        assert len(rows) == len(ids), f"asked for {len(ids)} rows, got {data.shape}"
        return rows.copy()


def read(model_dir: Path, core: ov.Core) -> ov.Model:
    """Read a directory's graph, with every position kept."""
    model = core.read_model(model_dir / "openvino_model.xml")
    keep_all_positions(model)
    return model
