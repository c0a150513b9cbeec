"""`ovfast-bench`: hands over to the binary of that name in the wheel.

A GGUF file that `ovfast-bench llm` shall measure is exported into the cache first, as `ovfast run`
does: exporting is Python's, and the binary takes directories only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from ovfast._openvino import fault, find_openvino

__all__ = ["binary", "main"]

_EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports


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
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["llm"]:
            arguments = ["llm", *_with_exported_model(arguments[1:])]
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)
    os.execve(path, ["ovfast-bench", *arguments], variables)


def _with_exported_model(arguments: list[str]) -> list[str]:
    """Put the directory that a GGUF file is exported to in its place, if one is given."""
    # Only to find the model; the binary judges the command line.
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("-m", "--model")
    try:
        given, others = finder.parse_known_args(arguments)
        finder.add_argument("--device", default="CPU")
        finder.add_argument("--packed", default="auto")
        engine, _ = finder.parse_known_args(arguments)
    except argparse.ArgumentError:
        return arguments
    if given.model is None or not given.model.lower().endswith(".gguf"):
        return arguments
    if not Path(given.model).expanduser().is_file():
        return arguments  # the binary says so

    from ovfast.errors import Error
    from ovfast.llm import resolve

    packed = "never" if engine.device != "CPU" else engine.packed
    try:
        directory = resolve(given.model, sys.stderr.isatty(), packed)
    except Error as error:
        # The binary refuses the file, too, so that its report carries an error.
        print(f"ovfast-bench: {error}", file=sys.stderr)
        return arguments
    return ["--model", str(directory), *others]
