"""What a source is: of which framework, in which files."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovfast.errors import ModelError
from ovfast.export.manifest import sha256
from ovfast.model_dir import PACKED_OPERATION

__all__ = ["FRAMEWORKS", "Source", "recognise"]

FRAMEWORKS = {
    "onnx": "ONNX",
    "tf": "TensorFlow",
    "tflite": "TensorFlow Lite",
    "paddle": "PaddlePaddle",
    "pytorch": "PyTorch",
    "ir": "OpenVINO IR",
}
"""OpenVINO's name of a framework -> ours for people."""

# A file of ONNX or TensorFlow has no mark of its own in it: the name decides.
_SUFFIXES = {
    ".onnx": "onnx",
    ".pb": "tf",
    ".pbtxt": "tf",
    ".tflite": "tflite",
    ".pdmodel": "paddle",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".pt2": "pytorch",
    ".jit": "pytorch",
    ".xml": "ir",
}
_SAVED_MODEL = "saved_model.pb"
_ENTRY_POINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_PYTORCH_FILES = {"scripted": "constants.pkl", "exported": "archive_format"}


@dataclass(frozen=True)
class Source:
    """A model in another framework's form."""

    framework: str
    """A key of FRAMEWORKS."""
    name: str
    """For people: the path, the entry point, or the class of an object."""
    path: Path | None = None
    """The file, or the folder of a SavedModel; None for an entry point and an object."""
    files: tuple[Path, ...] = ()
    """All files that are known to belong to it, the main one first."""
    entry_point: str | None = None
    """`module:function`."""
    object: Any = None
    """A PyTorch module, script module or exported program; of files and entry points, once loaded."""
    form: str = ""
    """Of a PyTorch file: scripted or exported."""

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files)

    def describe(self) -> dict[str, Any]:
        """Describe the source for a manifest; reads the files to hash them."""
        if self.path is None:
            return {"kind": self.framework, "object": self.name}
        described = {
            "kind": self.framework,
            "file": self.path.resolve().name,
            "bytes": self.bytes,
            "sha256": sha256(self.files[0]),
        }
        if len(self.files) > 1:
            described["files"] = {file.name: sha256(file) for file in self.files}
        return described


def recognise(source: Any) -> Source:
    """Find out what a source is, from its name and its first bytes.

    Raises ModelError when it is missing or nothing that can be converted, TypeError for an object
    of another type.
    """
    if not isinstance(source, (str, Path)):
        kind = type(source)
        # Modules whose classes come from torch, without importing it.
        if not any(base.__module__.split(".")[0] == "torch" for base in kind.__mro__):
            raise TypeError(
                f"cannot convert an object of type {kind.__name__}: expected a path, an entry point "
                "'module:function', a torch.nn.Module, ScriptModule or ExportedProgram"
            )
        return Source("pytorch", f"{kind.__module__}.{kind.__qualname__}", object=source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _file(path)
    if isinstance(source, str) and _ENTRY_POINT.fullmatch(source):
        return Source("pytorch", source, entry_point=source)
    raise ModelError(f"'{source}' does not exist")


def _directory(path: Path) -> Source:
    main = path / _SAVED_MODEL
    if main.is_file():
        variables = sorted((path / "variables").glob("variables.*"))
        return Source("tf", str(path), path, (main, *variables))
    models = sorted(file.name for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    advice = f"; give a file in it: {', '.join(models)}" if models else ""
    raise ModelError(f"'{path}' is not a SavedModel: it holds no {_SAVED_MODEL}{advice}")


def _file(path: Path) -> Source:
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error.strerror}") from error
    if not head:
        raise ModelError(f"'{path}' is empty")
    if head.startswith(b"GGUF"):
        raise ModelError(f"'{path}' is a GGUF file: use ovfast export")
    if head.startswith(b"\x89HDF") or path.suffix.lower() == ".keras":
        raise ModelError(
            f"'{path}' is a Keras file; write it as SavedModel with Keras (model.export(DIR)) and "
            "convert that folder"
        )
    framework = _SUFFIXES.get(path.suffix.lower())
    if framework is None:
        raise ModelError(
            f"'{path}' has a suffix that is not known: expected {', '.join(_SUFFIXES)}, or the "
            "folder of a SavedModel"
        )
    if framework == "tflite" and head[4:8] != b"TFL3":
        raise ModelError(f"'{path}' is not a TensorFlow Lite model: no mark TFL3 in it")
    if path.name == _SAVED_MODEL:
        return _directory(path.parent)
    if framework == "pytorch":
        return Source(framework, str(path), path, (path,), form=_pytorch_form(path))
    beside = {"paddle": ".pdiparams", "ir": ".bin"}.get(framework)
    files = [path]
    if beside:
        weights = path.with_suffix(beside)
        if not weights.is_file():
            raise ModelError(f"'{path}' lacks its weights: '{weights.name}' is not beside it")
        files.append(weights)
    if framework == "ir" and PACKED_OPERATION in path.read_bytes():
        raise ModelError(f"'{path}' is packed for ovfast: convert what it was made of")
    return Source(framework, str(path), path, tuple(files))


def _pytorch_form(path: Path) -> str:
    advice = (
        "Write TorchScript (torch.jit.save) or an exported program (torch.export.save), or give "
        "the entry point of a function that builds the model: package.module:function"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"'{path}' is not a PyTorch archive: {error}. {advice}") from error
    for form, file in _PYTORCH_FILES.items():
        if file in names:
            return form
    raise ModelError(f"'{path}' holds weights or a pickled object, not a whole model. {advice}")
