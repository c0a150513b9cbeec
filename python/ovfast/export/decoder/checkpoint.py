"""Tensors of a folder of safetensors files, read in pieces.

The format: 8 bytes with the length of a JSON header (dtype, shape and place of each tensor), the
header, and the bytes. Pieces are read, not mapped: what is mapped counts as memory of the process
until the kernel wants it back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import ModelError

__all__ = ["Checkpoint", "Tensor"]

_INDEX = "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
_SAMPLE = 4096  # bytes at either end of a tensor that tell a model from another of its shape


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In the file, bytes."""
    size: int
    """Bytes."""


class Checkpoint:
    """The tensors of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        """Read all headers.

        Raises ModelError when a file is missing, truncated or none of the format.
        """
        self.folder = folder
        self._headers: dict[Path, bytes] = {}
        self.tensors: dict[str, Tensor] = {}
        for file, wanted in _files(folder).items():
            found = self._read_header(file)
            missing = sorted(wanted - found.keys()) if wanted is not None else []
            if missing:
                raise ModelError(f"'{file}' lacks the tensor '{missing[0]}', which {_INDEX} names")
            for name in found.keys() & self.tensors.keys():
                raise ModelError(f"'{file}' and '{self.tensors[name].file}' both hold '{name}'")
            self.tensors.update(found)

    @property
    def size(self) -> int:
        """Of all tensors, bytes."""
        return sum(tensor.size for tensor in self.tensors.values())

    def find(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Look a tensor up. Raises ModelError when it is missing, misshapen or of another dtype."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelError(f"'{self.folder}' lacks the tensor '{name}' {list(shape)}")
        if tensor.shape != shape:
            raise ModelError(
                f"'{tensor.file}': expected tensor '{name}' of shape {list(shape)}, got "
                f"{list(tensor.shape)}"
            )
        if tensor.dtype not in _SIZES:
            raise ModelError(
                f"'{tensor.file}': expected tensor '{name}' of type {', '.join(_SIZES)}, got "
                f"{tensor.dtype}. Give the original, unquantized model."
            )
        return tensor

    def read_rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        """Read rows of a tensor as f32 [count, ...]; all dimensions but the first are one row."""
        tensor = self.tensors[name]
        row = math.prod(tensor.shape[1:])
        element = _SIZES[tensor.dtype]
        kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[tensor.dtype]
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.offset + first * row * element)
            values = np.fromfile(stream, kind, count * row)
        if values.size != count * row:
            raise ModelError(f"'{tensor.file}' ended within the tensor '{name}': it was truncated")
        if tensor.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(count, *tensor.shape[1:])

    def fingerprint(self) -> str:
        """A sha256 that other weights of the same shapes do not have, without reading all bytes.

        Of the headers, and the beginning and end of each tensor.
        """
        digest = hashlib.sha256()
        for file in sorted(self._headers):
            digest.update(self._headers[file])
            with file.open("rb") as stream:
                for tensor in self.tensors.values():
                    if tensor.file != file:
                        continue
                    for at in (tensor.offset, tensor.offset + max(tensor.size - _SAMPLE, 0)):
                        stream.seek(at)
                        digest.update(stream.read(min(_SAMPLE, tensor.size)))
        return digest.hexdigest()

    def _read_header(self, file: Path) -> dict[str, Tensor]:
        try:
            size = file.stat().st_size
            with file.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                    raise ModelError(f"'{file}' is truncated or no safetensors file")
                header = stream.read(length)
        except OSError as error:
            raise ModelError(f"'{file}' cannot be read: {error.strerror}") from error
        self._headers[file] = header
        try:
            return dict(_tensors(json.loads(header), file, 8 + length, size))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"'{file}' has a damaged header: {error!r}") from error


def _tensors(header: Any, file: Path, begin: int, size: int) -> Iterator[tuple[str, Tensor]]:
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = (int(at) for at in entry["data_offsets"])
        shape = tuple(int(length) for length in entry["shape"])
        tensor = Tensor(file, str(entry["dtype"]), shape, begin + first, last - first)
        if first < 0 or begin + last > size:
            raise ModelError(
                f"'{file}' is truncated: the tensor '{name}' ends at byte {begin + last}, the file "
                f"at {size}"
            )
        expected = math.prod(shape) * _SIZES.get(tensor.dtype, 0)
        if expected and tensor.size != expected:
            raise ModelError(
                f"'{file}': expected {expected} bytes of tensor '{name}', got {tensor.size}"
            )
        yield name, tensor


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """The files that make up the model, and the tensors that each must hold, if that is said."""
    index = folder / _INDEX
    if index.is_file():
        try:
            names = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"'{index}' cannot be read: {error!r}") from error
        files: dict[Path, set[str] | None] = {}
        for file in sorted(set(names.values())):
            if Path(file).name != file:
                raise ModelError(f"'{index}' names '{file}', which lies outside of the folder")
            files[folder / file] = {name for name in names if names[name] == file}
        return files
    single = folder / "model.safetensors"
    if single.is_file():
        return {single: None}
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return {found[0]: None}
    raise ModelError(
        f"'{folder}' holds {len(found)} safetensors files and no {_INDEX} that says which belong "
        "to the model"
    )
