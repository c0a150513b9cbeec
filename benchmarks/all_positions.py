"""Graphs that give the logits or the last hidden states of every position of a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from ovfast.evaluate.logits import EXACT, keep_all_positions

__all__ = ["EXACT", "Prefill", "read", "split_lm_head"]


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
