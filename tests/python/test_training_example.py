"""The example of docs/training.md, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import training_models  # noqa: F401  (skips where torch or NNCF is missing)

EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "digits_compression.py"


@pytest.mark.slow
def test_digits_are_still_read_after_compression() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--json", "--rounds", "3"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    models = {row["name"]: row for row in json.loads(done.stdout)["models"]}
    assert list(models) == [
        "float",
        "int8",
        "80 % zeros",
        "half the filters",
        "half the filters, int8",
    ]
    assert all(row["accuracy"] > 0.96 for row in models.values())
    size = {name: row["bytes"] for name, row in models.items()}
    assert size["half the filters, int8"] < size["half the filters"] < size["int8"] < size["float"]
