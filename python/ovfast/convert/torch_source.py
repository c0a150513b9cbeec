"""PyTorch models: modules, TorchScript, exported programs, and functions that build a module."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ovfast.convert.source import Source
from ovfast.errors import Error, ModelError

__all__ = ["decode", "describe_inputs", "evaluating", "is_exported", "leaves", "resolve"]


def resolve(source: Source, example: Any) -> tuple[Source, Any]:
    """Load the object of a source; return the source with it, and the example input.

    Raises Error without PyTorch, ValueError for an entry point that cannot be found, ModelError for
    a file that PyTorch cannot load and for what is no model.
    """
    try:
        import torch
    except ImportError as error:
        raise Error(
            "converting PyTorch models needs PyTorch: pip install 'ovfast[torch]'"
        ) from error
    model = source.object
    if source.entry_point is not None:
        model, example = _call(source.entry_point, example)
    elif source.path is not None:
        load: Any = torch.jit.load if source.form == "scripted" else torch.export.load
        options = {"map_location": "cpu"} if source.form == "scripted" else {}
        try:
            model = load(str(source.path), **options)
        except Exception as error:
            raise ModelError(f"PyTorch cannot load '{source.path}': {error}") from error
    if not isinstance(model, (torch.nn.Module, torch.export.ExportedProgram)):
        raise ModelError(
            f"'{source.name}' is of type {type(model).__name__}: expected a torch.nn.Module, "
            "ScriptModule or ExportedProgram"
        )
    if is_exported(model) and example is None:
        positional, named = model.example_inputs or ((), {})
        example = None if named else positional
    return dataclasses.replace(source, object=model), example


def is_exported(model: Any) -> bool:
    """Whether it is an exported program."""
    import torch

    return isinstance(model, torch.export.ExportedProgram)


def decode(source: Source, example: Any) -> Any:
    """Return the graph of a resolved PyTorch source as OpenVINO's frontend reads it.

    A module is traced with the example, and scripted without one.

    Raises ModelError when neither works.
    """
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    model = source.object
    try:
        with _quiet(), evaluating(model):
            if is_exported(model):
                # What was exported with a fixed size may rely on it anywhere in the graph.
                return TorchFXPythonDecoder.from_exported_program(model, dynamic_shapes=False)
            return TorchScriptPythonDecoder(model, example_input=_tensors(example))
    except Exception as error:
        how = "scripted; give an example input to trace it" if example is None else "traced"
        raise ModelError(f"'{source.name}' cannot be {how}: {error}") from error


def describe_inputs(input_model: Any, example: Any) -> None:
    """Give inputs the number of dimensions and the types of the example; sizes stay open."""
    from openvino import PartialShape
    from openvino.frontend.pytorch.utils import pt_to_ov_type_map

    tensors = _tensors(example)
    places = input_model.get_inputs()
    if isinstance(tensors, Mapping):  # in any order
        named = {name: place for place in places for name in place.get_names()}
        pairs = [(named[name], tensor) for name, tensor in tensors.items() if name in named]
    else:
        flat = leaves(tensors)
        pairs = list(zip(places, flat, strict=True)) if len(flat) == len(places) else []
    for place, tensor in pairs:
        if hasattr(tensor, "ndim"):
            input_model.set_partial_shape(place, PartialShape([-1] * tensor.ndim))
            input_model.set_element_type(place, pt_to_ov_type_map[str(tensor.dtype)])


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and back after the block."""
    modules = [] if is_exported(model) else list(model.modules())
    modes = [module.training for module in modules]
    if modules:
        model.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def leaves(value: Any) -> list[Any]:
    """Flatten tuples, lists and dictionaries of tensors."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def _tensors(value: Any) -> Any:
    """Turn NumPy arrays into tensors, in a copy of what holds them."""
    import numpy as np
    import torch

    if isinstance(value, Mapping):
        return {name: _tensors(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_tensors(item) for item in value)
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep off stderr what OpenVINO and PyTorch say of each other's versions."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_wanted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        root.removeFilter(is_wanted)


def _call(entry_point: str, example: Any) -> tuple[Any, Any]:
    module_name, _, function_name = entry_point.partition(":")
    # As `python -m` does: a module in the current directory is found.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in function_name.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the entry point '{entry_point}' cannot be found: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise ModelError(f"the entry point '{entry_point}' is not a function")
    made = found()
    if not isinstance(made, tuple):
        return made, example
    if len(made) != 2:
        raise ValueError(
            f"the entry point '{entry_point}' must return a module, or a module and its example "
            f"input, got {len(made)} values"
        )
    return made[0], made[1] if example is None else example
