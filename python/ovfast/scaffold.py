"""A folder for an operation of the user's own: written, built and checked."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ovfast.errors import Error, ModelError

if TYPE_CHECKING:
    from ovfast.gpu import KernelCheck

__all__ = ["build_folder", "check_folder", "new_operation"]

_FILES = Path(__file__).parent / "scaffold_files"
_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")


def new_operation(name: str, directory: Path) -> Path:
    """Write a folder with an elementwise operation that is whole: class, kernel, XML, build, check.

    Args:
        name: The operation's type, in CamelCase.
        directory: The folder to make.

    Returns the folder. Raises ValueError for a name of another form or one that ovfast has itself,
    and FileExistsError when the folder is there and not empty.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from ovfast.ops import kernel_config, operations

    if not _NAME.fullmatch(name):
        raise ValueError(f"the name is '{name}', expected CamelCase letters and digits: 'SoftClip'")
    if name in operations():
        raise ValueError(f"ovfast has an operation {name} itself: choose another name")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"'{directory}' is there already and holds something")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    templates = Environment(
        loader=FileSystemLoader(_FILES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        for template in sorted(_FILES.glob("*.jinja")):
            target = made / template.stem.replace("operation", snake)
            text = templates.get_template(template.name).render(name=name, snake=snake)
            target.write_text(text, encoding="utf-8")
        shutil.copy(kernel_config().parent / "tensor.cl", made)
        if directory.is_dir():
            directory.rmdir()
        made.rename(directory)
    return directory


def build_folder(directory: Path) -> Path:
    """Build the operation of a folder with CMake, and return the extension library.

    Raises Error with the compiler's last lines when that fails, or when there is no CMake.
    """
    from ovfast._openvino import find_openvino

    cmake = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
    if cmake is None:
        raise Error(
            "there is no CMake to build the operation with. Install it with: pip install cmake"
        )
    openvino = find_openvino()
    if openvino is None:
        raise Error("there is no OpenVINO to build the operation against")
    build = directory / "build"
    for command in (
        [
            *(cmake, "-S", str(directory), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"),
            f"-DOpenVINO_DIR={openvino.libraries.parent / 'cmake'}",
        ],
        [cmake, "--build", str(build)],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            lines = (result.stdout + result.stderr).strip().splitlines()
            raise Error(f"'{directory}' cannot be built:\n" + "\n".join(lines[-30:]))
    libraries = sorted(build.glob("*.so"))
    if len(libraries) != 1:
        raise Error(f"'{build}' holds {len(libraries)} libraries, expected the operation's alone")
    return libraries[0]


def check_folder(directory: Path, device: str = "CPU") -> KernelCheck:
    """Build and check the operation of a folder; see ovfast.gpu.check_operation().

    Raises Error when it cannot be built or is not what `ovfast ops new` writes, ModelError for an
    XML that is at fault.
    """
    import openvino as ov

    from ovfast.gpu import Operation, check_operation, require_device
    from ovfast.kernels import read_kernels
    from ovfast.ops import register

    configs = sorted(directory.glob("*.xml"))
    if len(configs) != 1:
        raise ModelError(
            f"'{directory}' holds {len(configs)} XML files, expected the operation's alone"
        )
    layers = {layer.operation: layer for layer in read_kernels(configs[0])}
    operation = getattr(_load(directory / "check.py"), "OPERATION", None)
    if not isinstance(operation, Operation):
        raise Error(f"'{directory / 'check.py'}' has no OPERATION of type ovfast.gpu.Operation")
    if operation.name not in layers:
        raise ModelError(
            f"'{configs[0]}' has a kernel for {', '.join(layers)}, but check.py is of {operation.name}"
        )
    core = ov.Core()
    require_device(core, device)
    library = build_folder(directory)
    core.add_extension(str(library))
    register(core, gpu=device.startswith("GPU"), kernels=configs)
    return check_operation(core, operation, layers[operation.name], library, device)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ovfast_check_{path.parent.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Error(f"there is no '{path}'")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
