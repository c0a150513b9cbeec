"""Generative models, fast, on Intel CPUs and GPUs through OpenVINO.

    import ovfast

    llm = ovfast.LLM("model.gguf")
    print(llm.generate("The capital of France is", max_new_tokens=16).text)

What is named here is loaded when it is first used, so that `import ovfast` costs next to nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovfast import _core as _core
    from ovfast._core import EngineInfo, SamplingParams
    from ovfast.convert import convert
    from ovfast.doctor import diagnose
    from ovfast.errors import CapacityError, DecryptionError, Error, ModelError
    from ovfast.evaluate import evaluate
    from ovfast.export import export
    from ovfast.llm import LLM, TextStream
    from ovfast.quantize import quantize
    from ovfast.results import Answer, Generation, GenerationMetrics

    __version__: str

__all__ = [
    "LLM",
    "Answer",
    "CapacityError",
    "DecryptionError",
    "EngineInfo",
    "Error",
    "Generation",
    "GenerationMetrics",
    "ModelError",
    "SamplingParams",
    "TextStream",
    "__version__",
    "cmake_dir",
    "convert",
    "diagnose",
    "evaluate",
    "export",
    "quantize",
]

# Name -> where it lives: (module, attribute).
_LAZY = {
    "LLM": ("ovfast.llm", "LLM"),
    "TextStream": ("ovfast.llm", "TextStream"),
    "Answer": ("ovfast.results", "Answer"),
    "Generation": ("ovfast.results", "Generation"),
    "GenerationMetrics": ("ovfast.results", "GenerationMetrics"),
    "CapacityError": ("ovfast.errors", "CapacityError"),
    "DecryptionError": ("ovfast.errors", "DecryptionError"),
    "Error": ("ovfast.errors", "Error"),
    "ModelError": ("ovfast.errors", "ModelError"),
    "EngineInfo": ("ovfast._core", "EngineInfo"),
    "SamplingParams": ("ovfast._core", "SamplingParams"),
    "convert": ("ovfast.convert", "convert"),
    "diagnose": ("ovfast.doctor", "diagnose"),
    "evaluate": ("ovfast.evaluate", "evaluate"),
    "export": ("ovfast.export", "export"),
    "quantize": ("ovfast.quantize", "quantize"),
    "__version__": ("ovfast._build", "VERSION"),
}


def cmake_dir() -> str:
    """Return the folder of ovfastConfig.cmake, for `cmake -Dovfast_DIR=...`."""
    build = importlib.import_module("ovfast._build")
    assert build.__file__ is not None
    return str(Path(build.__file__).parent / "lib" / "cmake" / "ovfast")


def __getattr__(name: str) -> Any:
    if name == "_core":
        return _load_core()
    if name not in _LAZY:
        raise AttributeError(f"module 'ovfast' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    if module == "ovfast._core":
        _load_core()
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _load_core() -> Any:
    """Import the extension module after making sure that it gets the right OpenVINO.

    `from ovfast import _core` comes here, since Python asks the package for the name first.
    """
    from ovfast._openvino import prepare

    prepare()
    return importlib.import_module("ovfast._core")
