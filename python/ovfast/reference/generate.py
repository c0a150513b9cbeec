"""Greedy generation on OpenVINO's Python API with the stateful graph of a model directory.

One sequence, one token a step, the KV cache kept by the graph itself: what a user would write first.
The C++ engine has to give the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from ovfast.errors import ModelError
from ovfast.model_dir import PACKED_OPERATION
from ovfast.ops import register

# Without these the CPU plugin computes in bf16 where the processor can, keeps the KV cache in u8 and
# quantizes activations to int8, each of which is enough to turn a close argmax.
_EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids", "beam_idx"})


@dataclass(frozen=True)
class ReferenceResult:
    """One greedy answer."""

    token_ids: list[int]
    """The generated tokens, the end-of-sequence token included."""
    logits: npt.NDArray[np.float32] | None
    """[len(token_ids), vocab_size]: what each token was chosen from; None unless asked for."""
    ttft_seconds: float
    """From the call to the first token."""
    inter_token_seconds: npt.NDArray[np.float32]
    """[len(token_ids) - 1]: time between a token and the one before it."""


class ReferenceLLM:
    """A language model run one token at a time through its stateful graph."""

    def __init__(
        self,
        model_dir: str | Path,
        *,
        exact: bool = True,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        """Load `model_dir`/openvino_model.xml onto the CPU.

        Args:
            model_dir: A directory that ovfast or Optimum Intel wrote. The graph takes input_ids and
                any of attention_mask, position_ids (all [b, t] i64) and beam_idx ([b] i32), returns
                logits f32, [b, t, vocab_size] or of the last position alone ([b, 1, vocab_size]),
                and keeps its KV cache as state.
            exact: Compute in f32, with an f32 KV cache and without dynamic quantization, also in
                ovfast's operations. Otherwise the plugin's defaults hold, and theirs.
            properties: Further OpenVINO properties for compile_model; these win.

        Raises:
            ModelError: The directory holds no such graph.
            ValueError: A property that the plugin does not know, or a value that it refuses.
        """
        path = Path(model_dir) / "openvino_model.xml"
        if not path.is_file():
            raise ModelError(f"{model_dir} holds no openvino_model.xml")
        core = ov.Core()
        try:
            model, self._weights = _read(core, path, exact)
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be read: {error}") from error

        self._inputs = {port.get_any_name() for port in model.inputs}
        if "input_ids" not in self._inputs or not self._inputs <= _INPUTS:
            raise ModelError(
                f"{path} is not a language model on token ids: expected the input input_ids and at "
                f"most {sorted(_INPUTS - {'input_ids'})}, got {sorted(self._inputs)}"
            )
        if "logits" not in {name for port in model.outputs for name in port.get_names()}:
            raise ModelError(f"{path} has no output named logits")
        if not model.get_sinks():
            raise ModelError(f"{path} keeps no KV cache as state; export it stateful")

        settings = {**(_EXACT if exact else {}), **(properties or {})}
        unknown = sorted(set(settings) - set(core.get_property("CPU", "SUPPORTED_PROPERTIES")))
        if unknown:
            raise ValueError(f"properties that OpenVINO's CPU plugin does not know: {unknown}")
        try:
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ValueError(f"{path} cannot be compiled with {settings}: {error}") from error
        self.vocab_size: int = model.output("logits").get_partial_shape()[2].get_length()

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        eos_ids: Sequence[int] = (),
        *,
        keep_logits: bool = False,
    ) -> ReferenceResult:
        """Continue `prompt_ids` with the most probable token, the lowest id among equals.

        Stops after `max_new_tokens` or after a token in `eos_ids`.

        Raises:
            ValueError: An empty prompt, an id outside the vocabulary, max_new_tokens < 1.
        """
        self._check(prompt_ids)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")

        token_ids: list[int] = []
        chosen_from = []
        times = [time.perf_counter()]
        self._request.reset_state()
        past, step_ids = 0, list(prompt_ids)
        while True:
            logits = self._infer(step_ids, past)
            token_ids.append(int(np.argmax(logits)))
            times.append(time.perf_counter())
            if keep_logits:
                chosen_from.append(logits.copy())
            if len(token_ids) == max_new_tokens or token_ids[-1] in eos_ids:
                break
            past, step_ids = past + len(step_ids), token_ids[-1:]

        durations = np.diff(np.array(times))
        return ReferenceResult(
            token_ids=token_ids,
            logits=np.stack(chosen_from) if keep_logits else None,
            ttft_seconds=float(durations[0]),
            inter_token_seconds=durations[1:].astype(np.float32),
        )

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after each of `ids`: [len(ids), vocab_size] float32.

        One token a step, since graphs that come from GGUF return the last position only.

        Raises:
            ValueError: No ids, or an id outside the vocabulary.
        """
        self._check(ids)
        self._request.reset_state()
        return np.stack([self._infer([token], past).copy() for past, token in enumerate(ids)])

    def _infer(self, ids: Sequence[int], past: int) -> npt.NDArray[np.float32]:
        """Run `ids`, which follow `past` tokens that the state holds.

        Returns the logits after the last one, [vocab_size]: a view that the next call overwrites.
        """
        total = past + len(ids)
        values = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, total), dtype=np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self._request.infer({name: values[name] for name in self._inputs})
        last: npt.NDArray[np.float32] = self._request.get_tensor("logits").data[0, -1]
        return last

    def _check(self, ids: Sequence[int]) -> None:
        if len(ids) == 0:
            raise ValueError("the prompt is empty: expected at least one token id")
        outside = [token for token in ids if not 0 <= token < self.vocab_size]
        if outside:
            raise ValueError(
                f"token id {outside[0]} is outside the vocabulary of {self.vocab_size} tokens"
            )


def _read(core: ov.Core, xml: Path, exact: bool) -> tuple[ov.Model, npt.NDArray[np.uint8] | None]:
    """Read a model, packed or not, and the weights that have to live as long as it does."""
    text = xml.read_bytes()
    if PACKED_OPERATION not in text:
        return core.read_model(xml), None
    register(core, gpu=False)
    if not exact:
        return core.read_model(xml), None
    text = text.replace(b' activations="int8"', b' activations="exact"')
    weights = np.memmap(
        xml.with_suffix(".bin"), dtype=np.uint8, mode="c"
    )  # a Tensor must be writeable
    return core.read_model(text, ov.Tensor(weights, shared_memory=True)), weights
