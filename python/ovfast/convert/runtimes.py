"""Running a model with its own framework."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovfast.convert.source import FRAMEWORKS, Source
from ovfast.errors import Error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["require_runtime", "run"]

Arrays = Mapping[str, "NDArray[Any]"]

# Framework -> module of its runtime -> package, the preferred one first.
_RUNTIMES = {
    "onnx": {"onnxruntime": "onnxruntime"},
    "tflite": {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"},
    "pytorch": {"torch": "torch"},
}


def require_runtime(framework: str) -> str:
    """Return the module that can run models of a framework.

    Raises ValueError when there is none that ovfast knows, Error when its package is missing.
    """
    if framework not in _RUNTIMES:
        known = ", ".join(FRAMEWORKS[name] for name in _RUNTIMES)
        raise ValueError(
            f"verify has no runtime for {FRAMEWORKS[framework]}: it knows those of {known}"
        )
    for module in _RUNTIMES[framework]:
        if importlib.util.find_spec(module) is not None:
            return module
    package = next(iter(_RUNTIMES[framework].values()))
    raise Error(f"verify needs a runtime for {FRAMEWORKS[framework]}: pip install {package}")


def run(
    source: Source, data: Arrays, outputs: Sequence[Any], *, by_name: bool
) -> list[NDArray[Any]]:
    """Run the original model.

    Args:
        source: The model; of PyTorch a resolved one.
        data: Inputs by name, in the order of the converted model.
        outputs: Ports of the converted model, which give names and order.
        by_name: A PyTorch module takes its inputs by name.
    """
    runtime = require_runtime(source.framework)
    if runtime == "torch":
        return _torch(source.object, data, by_name)
    path = str(source.path)
    if runtime == "onnxruntime":
        onnxruntime = importlib.import_module(runtime)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about the model's style
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = _names(outputs, [output.name for output in session.get_outputs()])
        return list(session.run(names, dict(data)))
    return _tflite(runtime, path, data, outputs)


def _names(outputs: Sequence[Any], known: Sequence[str]) -> list[str]:
    return [next(name for name in known if name in port.get_names()) for port in outputs]


def _torch(model: Any, data: Arrays, by_name: bool) -> list[NDArray[Any]]:
    import torch

    from ovfast.convert.torch_source import evaluating, is_exported, leaves

    module = model.module() if is_exported(model) else model
    tensors = {name: torch.from_numpy(array) for name, array in data.items()}
    with torch.no_grad(), evaluating(model):
        answer = module(**tensors) if by_name else module(*tensors.values())
    return [leaf.numpy() for leaf in leaves(answer)]


def _tflite(runtime: str, path: str, data: Arrays, outputs: Sequence[Any]) -> list[NDArray[Any]]:
    interpreter = importlib.import_module(f"{runtime}.interpreter").Interpreter(path)
    details = {detail["name"]: detail for detail in interpreter.get_input_details()}
    for name, array in data.items():
        interpreter.resize_tensor_input(details[name]["index"], array.shape)
    interpreter.allocate_tensors()
    for name, array in data.items():
        interpreter.set_tensor(details[name]["index"], array)
    interpreter.invoke()
    results = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    return [interpreter.get_tensor(results[name]) for name in _names(outputs, list(results))]
