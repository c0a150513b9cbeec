"""Environments of their own for tools whose pins would change the one that ovfast runs in.

An environment is made once, in the cache, from a locked list of packages that comes with ovfast.
Its name holds a hash of the list and of the Python version, so another list makes another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from ovfast.cache import cache_dir
from ovfast.errors import Error
from ovfast.export.child import run_child
from ovfast.export.staging import Staging, locked
from ovfast.progress import Bar

__all__ = ["OPTIMUM_REQUIREMENTS", "environment_dir", "environment_python", "isolated_python"]

OPTIMUM_REQUIREMENTS = Path(__file__).with_name("optimum-requirements.txt")
"""What Optimum Intel runs with."""

_STAMP = "ovfast-environment.json"
# Shares of the bar that end with the empty environment and with finding the packages.
_EMPTY, _FOUND = 0.05, 0.6


def environment_dir(requirements: Path = OPTIMUM_REQUIREMENTS) -> Path:
    """Where the environment of a list of packages is, or would be."""
    name = requirements.stem.removesuffix("-requirements")
    return cache_dir() / "environments" / f"{name}-{_key(requirements)}"


def environment_python(requirements: Path = OPTIMUM_REQUIREMENTS) -> Path | None:
    """The interpreter of the environment of a list; None when there is no whole one."""
    directory = environment_dir(requirements)
    try:
        stamp = json.loads((directory / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    python = directory / "bin" / "python"
    # The link is dead when the Python that the environment was made with has gone.
    whole = isinstance(stamp, dict) and stamp.get("key") == _key(requirements) and python.exists()
    return python if whole else None


def isolated_python(
    requirements: Path = OPTIMUM_REQUIREMENTS, *, progress: bool = True, verbose: bool = False
) -> Path:
    """Return the interpreter of the environment of a list, which is made if it is not there.

    It appears whole or not at all, and two processes at once make one. Made by pip as it is
    configured; OVFAST_PIP_ARGS has further options for it, for example of an index.

    Args:
        requirements: A file with a package and its exact version on each line.
        progress: Show a bar on stderr if that is a terminal, and say at the end what was made.
        verbose: Show pip's output.

    Raises Error with pip's last lines when it could not be made.
    """
    python = environment_python(requirements)
    if python is not None:
        return python
    directory = environment_dir(requirements)
    made = ""

    def waiting() -> None:
        bar.show(0.0, "waiting for another process that makes it")

    with Bar(f"environment of {directory.name.rsplit('-', 1)[0]}", progress) as bar:
        while python is None:
            with locked(directory, waiting):
                python = environment_python(requirements)
                if python is None and directory.exists():
                    # Its lock goes with it, so the name has to be locked anew.
                    shutil.rmtree(directory)
                elif python is None:
                    made = _make(directory, requirements, bar, verbose=verbose)
                    python = environment_python(requirements)
    if made and progress:
        print(made, file=sys.stderr)
    return python


def _make(directory: Path, requirements: Path, bar: Bar, *, verbose: bool) -> str:
    """Return what to tell about it."""
    start = time.monotonic()
    with Staging(directory) as staging:
        bar.show(0.0, "an empty environment")
        what = f"making an environment in '{directory.parent}'"
        # Copies, where links are the default, would not find their standard library.
        run_child(Path(sys.executable), ["-m", "venv", "--symlinks", str(staging.path)], what)
        _install(staging.path, requirements, bar, verbose=verbose)
        python = staging.path / "bin" / "python"
        # Scripts name their interpreter by the path that it had while it was made.
        for script in python.parent.iterdir():
            if not script.name.startswith("python"):
                script.unlink()
        stamp = {"key": _key(requirements), "packages": _packages(requirements)}
        (staging.path / _STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
        size = sum(
            file.lstat().st_size for file in staging.path.rglob("*") if not file.is_symlink()
        )
        bar.show(1.0, "writing to disk")
        staging.commit()
    return (
        f"Made '{directory}' ({size / 1e9:.1f} GB) in {time.monotonic() - start:.0f} s. It is used "
        f"from now on; to free the space: rm -r {shlex.quote(str(directory))}"
    )


def _install(environment: Path, requirements: Path, bar: Bar, *, verbose: bool) -> None:
    total = len(_packages(requirements))
    (site,) = environment.glob("lib/python*/site-packages")

    def show(lines: list[str]) -> None:
        found = sum(line.startswith("Collecting ") for line in lines)
        phase = next((line for line in reversed(lines) if not line.startswith(" ")), "")
        if phase.startswith("Installing collected packages:"):
            names = phase.count(",") + 1
            # There is no telling how far pip is but by what is there.
            there = sum(1 for _ in site.glob("*.dist-info"))
            share = min(1.0, there / names)
            bar.show(_FOUND + share * (0.98 - _FOUND), f"installing {names} packages")
        elif found:
            share = min(1.0, found / max(1, total))
            last = next(line for line in reversed(lines) if line.startswith("Collecting "))
            bar.show(_EMPTY + share * (_FOUND - _EMPTY), last.split(" (from")[0].lower())

    bar.show(_EMPTY, "asking for packages")
    try:
        options = shlex.split(os.environ.get("OVFAST_PIP_ARGS", ""))
    except ValueError as error:
        raise ValueError(f"OVFAST_PIP_ARGS is not a list of options: {error}") from error
    try:
        run_child(
            environment / "bin" / "python",
            [
                *("-m", "pip", "install", "--no-input", "--disable-pip-version-check"),
                *("--progress-bar", "off", "--requirement", str(requirements), *options),
            ],
            f"installing {requirements.name}",
            verbose=verbose,
            poll=show,
        )
    except Error as error:
        raise Error(
            f"{error}\nGive pip what it needs through OVFAST_PIP_ARGS (for example "
            "'--index-url URL' or '--find-links DIR'), and OVFAST_CACHE a directory with space."
        ) from error


def _packages(requirements: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def _key(requirements: Path) -> str:
    python = f"{sys.implementation.cache_tag} {sys.platform}"
    wanted = "\n".join([python, *_packages(requirements)])
    return hashlib.sha256(wanted.encode()).hexdigest()[:12]
