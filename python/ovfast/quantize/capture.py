"""The inputs that a pipeline really gives to a model, taken down while it runs.

with capture(compiled_model) as inputs:
    pipeline(...)
ovfast.quantize("model.xml", "model-int8", "ptq-int8", data=inputs)
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ovfast.errors import Error

__all__ = ["RESET_STATE", "Captured", "capture"]

RESET_STATE = "nncf_reset_state"
"""NNCF's own key in a sample (`nncf.definitions.NNCF_DATASET_RESET_STATE_KEY`): True where the state
is reset before it."""

Item = dict[str, Any]


class Captured(Sequence[Item]):
    """What was fed: a dictionary by input name for each inference, in NumPy arrays of its own.

    Those of a stateful model have RESET_STATE: True where a sequence begins. Sequences stand one
    after another, even if they ran at the same time.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._sequences: list[list[Item]] = []

    def __len__(self) -> int:
        """Inferences."""
        return sum(map(len, self._sequences))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """One inference, or several."""
        return [item for sequence in self._sequences for item in sequence][index]

    def save(self, folder: str | Path) -> Path:
        """Write one .npz for each inference into a new folder, which `--data` takes; return it.

        Raises ValueError when the folder holds something, Error when it cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"'{folder}' is there already: expected a new or an empty folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number, item in enumerate(self):
                # The key also says that this is one sample, not one a row.
                marked = {RESET_STATE: np.array(False), **item}
                np.savez(folder / f"{number:06}.npz", **marked)
        except OSError as error:
            raise Error(f"cannot write '{folder}': {error.strerror}") from error
        return folder


class _Recorder:
    def __init__(self, model: Any, limit: int | None) -> None:
        self.captured = Captured()
        self._model = model
        self._is_request = hasattr(model, "model_inputs")
        # Ports compare by the nodes of the compiled model that they belong to.
        self._ports = list(model.model_inputs if self._is_request else model.inputs)
        self._limit = limit
        self._lock = threading.Lock()
        self._sequences: dict[int, list[Item]] = {}
        # Alive, so that no other object gets their id.
        self._owners: list[Any] = []

    def is_ours(self, request: Any) -> bool:
        if self._is_request:
            return request is self._model
        return list(request.model_inputs) == self._ports

    def reset(self, request: Any) -> None:
        with self._lock:
            self._sequences.pop(id(request), None)

    def take(self, request: Any, inputs: Any) -> None:
        if self.is_ours(request):
            self._take(request, inputs, request, id(request))

    def take_queued(self, queue: Any, inputs: Any) -> None:
        number = queue.get_idle_request_id()
        request = queue[number]  # an object of its own every time
        if self.is_ours(request):
            self._take(request, inputs, queue, id(queue) + number)

    def _take(self, request: Any, inputs: Any, owner: Any, key: int) -> None:
        with self._lock:
            if self._limit is not None and len(self.captured) >= self._limit:
                return
            item = _fed(request, inputs)
            if not request.query_state():
                self.captured._sequences.append([item])
                return
            begins = key not in self._sequences
            if begins:
                self._owners.append(owner)
                self._sequences[key] = []
                self.captured._sequences.append(self._sequences[key])
            self._sequences[key].append({**item, RESET_STATE: begins})


@contextlib.contextmanager
def capture(model: Any, limit: int | None = None) -> Iterator[Captured]:
    """Take down what a compiled model is fed inside of the block.

    Args:
        model: An `openvino.CompiledModel`, of which all requests count: called directly, created
            before or inside of the block, or in an `openvino.AsyncInferQueue`; or one
            `openvino.InferRequest`. Pipelines in C++ (OpenVINO GenAI) do not pass here.
        limit: Inferences after this many are not taken down.

    Yields what fills up. A stateful model that has run before the block should be reset at its
    beginning: the first inference of a request is taken for the start of a sequence.

    Raises TypeError for another object; ValueError at the end of the block when nothing was fed.
    """
    import openvino as ov

    if not isinstance(model, (ov.CompiledModel, ov.InferRequest)):
        raise TypeError(
            "expected an openvino.CompiledModel or an openvino.InferRequest, got "
            f"{type(model).__name__}"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected a whole number of at least 1, got {limit!r}")
    recorder = _Recorder(model, limit)
    with contextlib.ExitStack() as patches:
        for owner, name, see in (
            (ov.InferRequest, "infer", recorder.take),
            (ov.InferRequest, "start_async", recorder.take),
            (ov.InferRequest, "reset_state", recorder.reset),
            (ov.AsyncInferQueue, "start_async", recorder.take_queued),
        ):
            patches.enter_context(_watched(owner, name, see))
        yield recorder.captured
    if not recorder.captured:
        raise ValueError(
            "nothing was captured: the model did not run inside of the block, or not through "
            "Python's openvino"
        )


@contextlib.contextmanager
def _watched(owner: type, name: str, see: Callable[..., None]) -> Iterator[None]:
    """Let a class's method call `see(object, inputs)` first, inside of the block."""
    original = getattr(owner, name)
    own = name in vars(owner)

    @functools.wraps(original)
    def method(self: Any, inputs: Any = None, *arguments: Any, **options: Any) -> Any:
        see(self, inputs)
        return original(self, inputs, *arguments, **options)

    @functools.wraps(original)
    def reset(self: Any) -> Any:
        see(self)
        return original(self)

    setattr(owner, name, reset if name == "reset_state" else method)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


def _fed(request: Any, inputs: Any) -> Item:
    """Copies of all inputs of an inference: those given with the call, and those set before."""
    from openvino.utils.data_helpers.data_dispatcher import _data_dispatch

    given = _data_dispatch(request, inputs, is_shared=True)  # Tensors, by index, name or port
    if not isinstance(given, Mapping):
        given = {} if given is None else {0: given}
    named = {}
    for key, tensor in given.items():
        port = request.model_inputs[key] if isinstance(key, int) else key
        named[port if isinstance(port, str) else port.get_any_name()] = tensor
    item = {}
    for index, port in enumerate(request.model_inputs):
        found = [named[name] for name in port.get_names() if name in named]
        tensor = found[0] if found else request.get_input_tensor(index)
        item[port.get_any_name()] = np.array(tensor.data)
    return item
