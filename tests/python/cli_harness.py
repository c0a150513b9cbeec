"""What the tests of the command line share: a way to run it, and a model that plays a script."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripted_llm import ScriptedLLM

import ovfast.llm
from ovfast.cli.main import main

HERE = Path(__file__).parent


@dataclass
class Result:
    code: int
    out: str
    err: str


Ovfast = Callable[..., Result]


@pytest.fixture
def ovfast_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Ovfast:
    """Runs `ovfast ARGS` in this process."""
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))

    def run(*args: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(args)
        sys.stdout.flush()
        captured = capfd.readouterr()
        assert isinstance(exit_.value.code, int)
        return Result(exit_.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def scripted(ovfast_command: Ovfast, monkeypatch: pytest.MonkeyPatch) -> Ovfast:
    monkeypatch.setattr(ovfast.llm, "LLM", ScriptedLLM)
    return ovfast_command


def scripted_process() -> list[str]:
    return [sys.executable, "-m", "scripted_llm"]


def environment(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "OVFAST_CACHE": str(tmp_path / "cache"),
        "SCRIPTED_LLM_STARTED": str(tmp_path / "started"),
    }


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} did not appear"
        time.sleep(0.01)


def tiny(tiny_model_dirs: dict[str, Path]) -> str:
    return str(tiny_model_dirs["qwen2"])
