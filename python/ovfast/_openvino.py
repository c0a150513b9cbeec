"""The OpenVINO that the extension module gets: is it there, and the one we were built against?

Python's `openvino` package is found, never imported: that takes as long as the rest of a start.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

__all__ = ["InstalledOpenVINO", "fault", "find_openvino", "prepare", "tokenizers_extension"]


@dataclass(frozen=True)
class InstalledOpenVINO:
    """The OpenVINO that `import openvino` would take."""

    version: str | None
    """As its package metadata says, "2026.4.1"; None without metadata."""
    libraries: Path
    """The folder of its shared libraries."""


def find_openvino() -> InstalledOpenVINO | None:
    """Find OpenVINO on the module path; None when it is not installed."""
    package = _package_dir("openvino")
    if package is None:
        return None
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        version = None
    return InstalledOpenVINO(version, package / "libs")


def fault(found: InstalledOpenVINO | None, wanted: str, library: str) -> str | None:
    """Say what is wrong with the OpenVINO found and which command mends it; None if nothing is.

    Args:
        found: What find_openvino() returned.
        wanted: The version that the extension module was built against.
        library: The file name of the library that it links to.
    """
    if found is None:
        return (
            "the package 'openvino' is not installed. Install it with: "
            f"pip install openvino=={wanted}"
        )
    if found.version is not None and found.version != wanted:
        return (
            f"this ovfast was built against OpenVINO {wanted}, but {found.version} is installed. "
            f"Install the matching one with: pip install openvino=={wanted}"
        )
    if not (found.libraries / library).is_file():
        return (
            f"the installed 'openvino' lacks {library} (looked in {found.libraries}). "
            f"Repair it with: pip install --force-reinstall openvino=={wanted}"
        )
    return None


def prepare() -> None:
    """Make the extension module loadable.

    Raises ImportError, with the command that mends it, when OpenVINO is missing or not the version
    built against, or when ovfast itself was not built.
    """
    try:
        from ovfast._build import OPENVINO_LIBRARY, OPENVINO_VERSION
    except ModuleNotFoundError:
        raise ImportError(
            "this is a source tree of ovfast without its C++ core. Build it with: pip install .",
            name="ovfast",
        ) from None
    found = find_openvino()
    message = fault(found, OPENVINO_VERSION, OPENVINO_LIBRARY)
    if message is not None:
        raise ImportError(f"ovfast cannot load: {message}", name="openvino")
    assert found is not None
    if not _on_run_path(found, OPENVINO_LIBRARY):
        # The loader resolves what _core needs by soname among the libraries already loaded.
        gguf = OPENVINO_LIBRARY.replace("libopenvino.", "libopenvino_gguf_frontend.")
        for name in (OPENVINO_LIBRARY, gguf):
            try:
                ctypes.CDLL(str(found.libraries / name))
            except OSError as error:
                raise ImportError(
                    f"ovfast cannot load: {error}. Repair OpenVINO with: "
                    f"pip install --force-reinstall openvino=={OPENVINO_VERSION}",
                    name="openvino",
                ) from error


def tokenizers_extension() -> Path:
    """Return the path of the openvino_tokenizers library.

    Raises ImportError, with the command that mends it, when that package is not installed.
    """
    package = _package_dir("openvino_tokenizers")
    found = sorted((package / "lib").glob("libopenvino_tokenizers.*")) if package else []
    if not found:
        raise ImportError(
            "ovfast needs the package 'openvino-tokenizers'. Install it with: "
            f"pip install openvino-tokenizers=={_tokenizers_version()}",
            name="openvino_tokenizers",
        )
    return found[0]


def _tokenizers_version() -> str:
    """The release of openvino-tokenizers that goes with our OpenVINO: 2026.4.1.0 with 2026.4.1."""
    from ovfast._build import OPENVINO_VERSION

    return f"{OPENVINO_VERSION}.0"


def _package_dir(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _on_run_path(found: InstalledOpenVINO, library: str) -> bool:
    """Whether the run path of the extension module leads to this very OpenVINO."""
    spec = importlib.util.find_spec("ovfast._core")
    if spec is None or spec.origin is None:
        return False
    beside = Path(spec.origin).parent.parent / "openvino" / "libs" / library
    return beside.is_file() and beside.samefile(found.libraries / library)
