"""The logits of every position of a text, of a model directory in either form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast import _core
from ovfast.crypto import read_ir
from ovfast.errors import ModelError
from ovfast.model_dir import ModelDir

__all__ = [
    "EXACT",
    "PositionLogits",
    "graph_inputs",
    "keep_all_positions",
    "read_all_positions",
    "read_graph",
]

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
"""Properties without which the CPU plugin rounds activations, keys and values."""

Logits = npt.NDArray[np.float32]

_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids", "beam_idx"})
_CHUNK_BYTES = 128 << 20
_MOST_ROWS = 512


def keep_all_positions(model: Any) -> int:
    """Let a graph that goes on with the last position only go on with all; how many cuts it had.

    Graphs from GGUF gather the last position before the last layer's MLP, with an index that they
    compute from the shape of input_ids. What comes after treats rows alike. `model` is an
    `openvino.Model`, changed in place.
    """
    from openvino import opset13 as ops

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


def read_all_positions(model_dir: str | Path | ModelDir, core: Any, *, exact: bool = False) -> Any:
    """Read a directory's graph with every position kept, for `core`, an `openvino.Core`.

    Packed directories run on ovfast's operations, which `exact` lets keep activations in f32.
    """
    directory = ModelDir.check(model_dir)
    return read_graph(
        directory.files, directory.model_xml.name, core, packed=directory.packed, exact=exact
    )


def read_graph(files: _core.ModelFiles, name: str, core: Any, *, packed: bool, exact: bool) -> Any:
    """Read one IR as `read_all_positions` does; `packed`: it holds ovfast's operations."""
    xml = files.path / name
    if packed:
        from ovfast.ops import register

        register(core, gpu=False)
    try:
        model = read_ir(files, name, core) if files.encrypted else core.read_model(xml)
    except RuntimeError as error:
        raise ModelError(f"'{xml}' cannot be read: {error}") from error
    if exact and packed:
        for node in model.get_ops():
            if "activations" in node.get_attributes():
                node.set_attribute("activations", "exact")
    keep_all_positions(model)
    return model


def graph_inputs(ids: Sequence[int], past: int) -> dict[str, npt.NDArray[Any]]:
    """What a stateful graph may take for `ids`, which follow `past` tokens that it knows."""
    total = past + len(ids)
    return {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, total), np.int64),
        "position_ids": np.arange(past, total, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }


class PositionLogits:
    """A language model that answers a text with the logits after each of its tokens.

    It runs as a stateful graph in plain OpenVINO, on the CPU, one text at a time.
    """

    def __init__(
        self,
        model: str | Path | ModelDir | Any,
        *,
        exact: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Compile a model.

        Args:
            model: A model directory, stock or packed, or an `openvino.Model` with the inputs and
                outputs of one, which stays as it is.
            exact: Compute in f32, with an f32 KV cache and without dynamic quantization, also in
                ovfast's operations of a directory. Otherwise the plugin's defaults hold, and theirs.
            properties: Further OpenVINO properties; these win.

        Raises:
            ModelError: No usable model.
            ValueError: A property that the plugin does not know, or a value that it refuses.
        """
        import openvino as ov

        core = ov.Core()
        if isinstance(model, (str, Path, ModelDir)):
            name = f"'{model.path if isinstance(model, ModelDir) else model}'"
            graph = read_all_positions(model, core, exact=exact)
        else:
            name = model.get_friendly_name()
            graph = model.clone()
            keep_all_positions(graph)
        self._name = name
        self._inputs = {port.get_any_name() for port in graph.inputs}
        if "input_ids" not in self._inputs or not self._inputs <= _INPUTS:
            raise ModelError(
                f"{name} is not a language model on token ids: expected the input input_ids and at "
                f"most {sorted(_INPUTS - {'input_ids'})}, got {sorted(self._inputs)}"
            )
        self.vocab_size: int = graph.output("logits").get_partial_shape()[2].get_length()
        """Columns of the logits."""
        settings = {**(EXACT if exact else {}), **(properties or {})}
        unknown = sorted(set(settings) - set(core.get_property("CPU", "SUPPORTED_PROPERTIES")))
        if unknown:
            raise ValueError(f"properties that OpenVINO's CPU plugin does not know: {unknown}")
        try:
            self._request: Any = core.compile_model(graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ValueError(f"{name} cannot be compiled with {settings}: {error}") from error

    def __call__(self, ids: Sequence[int]) -> Logits:
        """Logits after each of `ids`: f32 [len(ids), vocab_size].

        That is 600 KB a token for a vocabulary of 150,000; `chunks` needs no more than a part.

        Raises:
            ValueError: No ids, or an id outside the vocabulary.
        """
        whole = np.empty((len(ids), self.vocab_size), np.float32)
        for first, rows in self.chunks(ids):
            whole[first : first + len(rows)] = rows
        return whole

    def chunks(self, ids: Sequence[int], rows: int | None = None) -> Iterator[tuple[int, Logits]]:
        """Yield (first position, f32 [up to `rows`, vocab_size]) for all of `ids` in order.

        By default chunks have at most 128 MiB and 512 rows: the same for models of one vocabulary.

        Raises:
            ValueError: No ids, or an id outside the vocabulary.
        """
        if len(ids) == 0:
            raise ValueError("the text is empty: expected at least one token id")
        outside = [token for token in ids if not 0 <= token < self.vocab_size]
        if outside:
            raise ValueError(
                f"token id {outside[0]} is outside the vocabulary of {self.vocab_size} tokens"
            )
        rows = rows or max(1, min(_MOST_ROWS, _CHUNK_BYTES // (4 * self.vocab_size)))
        self._request.reset_state()
        for first in range(0, len(ids), rows):
            yield first, self._infer(list(ids[first : first + rows]), first)

    def _infer(self, ids: list[int], past: int) -> Logits:
        values = graph_inputs(ids, past)
        self._request.infer({name: values[name] for name in self._inputs})
        data = self._request.get_tensor("logits").data
        if data.size != len(ids) * self.vocab_size:
            raise ModelError(
                f"{self._name} does not give the logits of all positions: expected "
                f"[1, {len(ids)}, {self.vocab_size}], got {list(data.shape)}"
            )
        return np.array(data.reshape(len(ids), self.vocab_size), np.float32)
