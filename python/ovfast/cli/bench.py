"""`ovfast-bench`: hands over to the binary of that name in the wheel."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ovfast._openvino import fault, find_openvino

__all__ = ["binary", "main"]


def binary() -> Path:
    """Return the path of the binary.

    Raises ImportError, with the command that mends it, when it was not built.
    """
    build = importlib.util.find_spec("ovfast._build")
    path = Path(build.origin).parent / "bin" / "ovfast-bench" if build and build.origin else None
    if path is None or not path.is_file():
        raise ImportError(
            "this ovfast has no ovfast-bench. Build it with: pip install .", name="ovfast"
        )
    return path


def environment() -> dict[str, str]:
    """Return the environment in which the binary finds the OpenVINO that Python would take.

    Raises ImportError, with the command that mends it, when that is not the one built against.
    """
    from ovfast._build import OPENVINO_LIBRARY, OPENVINO_VERSION

    found = find_openvino()
    message = fault(found, OPENVINO_VERSION, OPENVINO_LIBRARY)
    if message is not None or found is None:
        raise ImportError(f"ovfast-bench cannot run: {message}", name="openvino")
    beside = binary().parents[2] / "openvino" / "libs" / OPENVINO_LIBRARY
    variables = dict(os.environ)
    if not (beside.is_file() and beside.samefile(found.libraries / OPENVINO_LIBRARY)):
        paths = [str(found.libraries), variables.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
    return variables


def main() -> None:
    """Replace this process by the binary."""
    try:
        path = binary()
        variables = environment()
    except ImportError as error:
        sys.exit(f"ovfast-bench: {error}")
    os.execve(path, ["ovfast-bench", *sys.argv[1:]], variables)
