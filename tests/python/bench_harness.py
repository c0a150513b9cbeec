"""Runs the real ovfast-bench."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ovfast.cli import bench


def run(
    *arguments: object,
    code: int = 0,
    cwd: Path | None = None,
    stdin: str = "",
    program: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end and check its exit code."""
    done = subprocess.run(
        [program or bench.binary(), *map(str, arguments)],
        cwd=cwd,
        env=bench.environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def llm(folder: Path, model: Path, *arguments: object, code: int = 0) -> dict[str, Any]:
    """Run `ovfast-bench llm` and return its JSON report."""
    file = folder / "report.json"
    run("llm", "-m", model, "--json", file, *arguments, code=code)
    report = json.loads(file.read_text())
    assert isinstance(report, dict)
    return report
