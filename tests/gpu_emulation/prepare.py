"""Make what OpenVINO's GPU plugin needs to run without a GPU, once, in the cache.

    python tests/gpu_emulation/prepare.py            # makes it, prints environment variables as JSON
    python tests/gpu_emulation/prepare.py COMMAND... # makes it, runs a command that sees the GPU

An OpenCL runtime for processors (an environment of its own, from pip), the file that tells the OpenCL
loader where it is, and our layer, which presents it as a GPU. The loader and the headers are Debian's
ocl-icd-libopencl1 and opencl-headers (tools/system_packages.sh --gpu-emulation).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ovfast.cache import cache_dir
from ovfast.errors import Error
from ovfast.export.isolation import environment_dir, environment_python, isolated_python

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "gpu-emulation-requirements.txt"
_SOURCE = HERE / "layer.c"


def prepared() -> dict[str, str]:
    """Return the environment variables under which OpenVINO finds the emulated GPU.

    Raises Error, with the reason and what mends it, when it was not made or cannot run here.
    """
    if environment_python(REQUIREMENTS) is None or not _layer().is_file():
        raise Error("the emulated GPU was not made: run `make gpu-emulation`")
    _require_loader()
    libraries = environment_dir(REQUIREMENTS) / "lib"
    return {
        "OCL_ICD_VENDORS": str(_layer().parent),
        "OPENCL_LAYERS": str(_layer()),
        # The runtime needs a newer TBB than the one that comes with OpenVINO.
        "LD_PRELOAD": str(libraries / "libtbb.so.12"),
    }


def prepare() -> dict[str, str]:
    """Make it if it is not there. Raises Error with the reason when that cannot be."""
    _require_loader()
    isolated_python(REQUIREMENTS)
    library = environment_dir(REQUIREMENTS) / "lib" / "libintelocl.so"
    if not library.is_file():
        raise Error(f"intel-opencl-rt holds no {library.name} where it was: {library}")
    if not _layer().is_file():
        directory = _layer().parent
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            _compile(made / _layer().name)
            # The one that comes with the package names a folder that is not there.
            (made / "intel.icd").write_text(f"{library}\n", encoding="utf-8")
            shutil.rmtree(directory, ignore_errors=True)
            made.rename(directory)
    return prepared()


def _layer() -> Path:
    # The path of the runtime stands in the folder, too.
    key = hashlib.sha256(_SOURCE.read_bytes() + str(environment_dir(REQUIREMENTS)).encode())
    return cache_dir() / "gpu-emulation" / key.hexdigest()[:12] / "layer.so"


def _require_loader() -> None:
    try:
        ctypes.CDLL("libOpenCL.so.1")
    except OSError as error:
        raise Error(
            f"there is no OpenCL loader ({error}): install ocl-icd-libopencl1, or run "
            "tools/system_packages.sh --gpu-emulation as root"
        ) from error


def _compile(target: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    command = [
        compiler,
        "-O1",
        "-Wall",
        "-Wextra",
        "-shared",
        "-fPIC",
        "-o",
        str(target),
        str(_SOURCE),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Error(f"cannot run the C compiler '{compiler}': {error.strerror}") from error
    if result.returncode != 0:
        raise Error(
            "the OpenCL layer cannot be compiled (opencl-headers has CL/cl_layer.h):\n"
            + result.stderr
        )


if __name__ == "__main__":
    try:
        variables = prepare()
    except Error as error:
        sys.exit(f"error: {error}")
    if len(sys.argv) == 1:
        print(json.dumps(variables))
    else:
        try:
            os.execvpe(sys.argv[1], sys.argv[1:], {**os.environ, **variables})
        except OSError as error:
            sys.exit(f"error: cannot run '{sys.argv[1]}': {error.strerror}")
