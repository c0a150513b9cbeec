"""Inputs of a model from files, folders and functions: what it is calibrated and measured with."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.quantize.capture import RESET_STATE
from ovfast.quantize.images import IMAGE_SUFFIXES, read_images
from ovfast.quantize.ptq_options import ActivationOptions

__all__ = ["LABELS", "find_function", "read_labelled", "read_samples", "rows"]

LABELS = "labels"
"""The array of an .npz that holds what is right: integers [n]."""

_ARRAYS = (".npz", ".npy")

Array = npt.NDArray[Any]
Sample = dict[str, Any]


def read_samples(model: Any, options: ActivationOptions, limit: int) -> list[Sample]:
    """Read up to `limit` inputs of an `openvino.Model`, each an array by input name.

    Raises ValueError for what does not fit the model, with the names and shapes that it expects,
    and for data that is missing or empty.
    """
    data = options.data
    items: Iterable[Any] = ()
    if isinstance(data, (str, Path)) and Path(data).exists():
        items = _read_path(model, Path(data), options)
    elif options.has_image_options:
        raise ValueError("image options are for a folder of images, which data is not")
    elif isinstance(data, (str, Path)):
        items = find_function("data", str(data))()
    elif data is not None:
        items = data
    stateful = bool(model.get_sinks())
    found = []
    for number, item in enumerate(islice(items, limit)):
        sample = _as_sample(model, item, f"sample {number} of the calibration data")
        if RESET_STATE in sample and not stateful:
            del sample[RESET_STATE]
        found.append(sample)
    if not found:
        raise ValueError("data: expected inputs to calibrate with, got none")
    return found


def read_labelled(model: Any, path: Path) -> list[Sample]:
    """Read an .npz with inputs and LABELS as samples that hold the rows' labels, too.

    Raises ValueError when it is no such file or does not fit the model.
    """
    arrays = _load(path)
    if LABELS not in arrays:
        raise ValueError(f"'{path}': expected an .npz with the array '{LABELS}'")
    labels = arrays.pop(LABELS)
    samples = [_as_sample(model, item, f"'{path}'") for item in _split(model, arrays, path)]
    counts = [rows(sample) for sample in samples]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != sum(counts):
        raise ValueError(
            f"'{path}': expected {sum(counts)} integers as '{LABELS}', one a row, got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    ends = np.cumsum(counts)
    for sample, count, end in zip(samples, counts, ends, strict=True):
        sample[LABELS] = labels[end - count : end]
    return samples


def rows(sample: Mapping[str, Any]) -> int:
    """How many rows a batch holds: the first dimension of its first input."""
    first = next(value for name, value in sample.items() if name not in (RESET_STATE, LABELS))
    return int(first.shape[0]) if np.ndim(first) else 1


def find_function(option: str, name: str) -> Any:
    """Find `module:function`; modules in the current folder are found, too.

    Raises ValueError when there is none.
    """
    module, function = name.split(":")
    # As `python -m` does.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{option}: '{name}' cannot be found: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        kind = type(found).__name__
        raise ValueError(f"{option}: expected a function, got '{name}', a {kind}")  # noqa: TRY004
    return found


def _read_path(model: Any, path: Path, options: ActivationOptions) -> Iterator[Any]:
    if not path.is_dir():
        if path.suffix not in _ARRAYS:
            raise ValueError(f"data: expected .npz, .npy or a folder for this model, got '{path}'")
        if options.has_image_options:
            raise ValueError(f"image options are for a folder of images, not '{path}'")
        yield from _of_file(model, path)
        return
    files = sorted(file for file in path.iterdir() if file.is_file())
    arrays = [file for file in files if file.suffix in _ARRAYS]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if bool(arrays) == bool(images):
        got = "both" if arrays else "none of them"
        raise ValueError(f"data: expected .npz and .npy files or images in '{path}', got {got}")
    if images:
        yield from read_images(model, images, options)
        return
    if options.has_image_options:
        raise ValueError(f"image options are for a folder of images, '{path}' holds arrays")
    for file in arrays:
        yield from _of_file(model, file)


def _of_file(model: Any, path: Path) -> Iterator[Any]:
    arrays = _load(path)
    if RESET_STATE in arrays:  # of a capture: one inference as it was
        yield arrays
        return
    arrays.pop(LABELS, None)
    yield from _split(model, arrays, path)


def _load(path: Path) -> dict[str, Array]:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content:
            return dict(content)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' cannot be read as arrays of NumPy: {error}") from error


def _split(model: Any, arrays: dict[str, Array], path: Path) -> list[Sample]:
    """Cut arrays into samples, along a dimension before the model's or along its batch."""
    named = _by_input(model, arrays, f"'{path}'")
    parts: dict[str, list[Array]] = {}
    for port in model.inputs:
        name, shape = port.get_any_name(), port.get_partial_shape()
        array = named[name]
        batch = 1
        if shape.rank.is_static and array.ndim == len(shape) + 1:
            parts[name] = list(array)
            continue
        if array.ndim and shape.rank.is_static and len(shape) and shape[0].is_static:
            batch = shape[0].get_length()
        if array.ndim == 0 or batch == 0 or len(array) % batch:
            raise ValueError(
                f"'{path}': '{name}' has the shape {list(array.shape)}, which is no number of "
                f"samples of {shape}"
            )
        parts[name] = [array[at : at + batch] for at in range(0, len(array), batch)]
    counts = {name: len(part) for name, part in parts.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"'{path}': the inputs hold different numbers of samples: {counts}")
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _by_input(model: Any, given: Mapping[str, Any], where: str) -> Sample:
    """The values by the first name of the model's inputs."""
    ports = model.inputs
    if len(ports) == 1 and len(given) == 1:
        # There is only one thing that it can be.
        return {ports[0].get_any_name(): next(iter(given.values()))}
    first = {name: port.get_any_name() for port in ports for name in port.get_names()}
    found = {first[name]: value for name, value in given.items() if name in first}
    wanted = sorted(set(first.values()))
    if sorted(found) != wanted or len(found) != len(given):
        raise ValueError(f"{where}: expected arrays for {wanted}, got {sorted(given)}")
    return found


def _as_sample(model: Any, item: Any, where: str) -> Sample:
    """Check and convert what a source gave for one inference."""
    from openvino import PartialShape

    ports = {port.get_any_name(): port for port in model.inputs}
    extra = {}
    if isinstance(item, Mapping):
        given = dict(item)
        if RESET_STATE in given:
            extra[RESET_STATE] = bool(given.pop(RESET_STATE))
    elif isinstance(item, (tuple, list)):
        if len(item) != len(ports):
            raise ValueError(f"{where}: expected {len(ports)} inputs, got {len(item)}")
        given = dict(zip(ports, item, strict=True))
    else:
        given = {"": item}
    sample = {}
    for name, value in _by_input(model, given, where).items():
        port = ports[name]
        kind, shape = port.get_element_type().to_dtype(), port.get_partial_shape()
        array = np.asarray(value)
        if not np.can_cast(array.dtype, kind, "same_kind"):
            raise ValueError(f"{where}: '{name}' is {array.dtype}, the model takes {kind}")
        if not shape.compatible(PartialShape(list(array.shape))):
            raise ValueError(
                f"{where}: '{name}' has the shape {list(array.shape)}, the model takes {shape}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{where}: '{name}' holds a NaN or an infinity")
        sample[name] = np.ascontiguousarray(array, kind).reshape(array.shape)
    return {**sample, **extra}
