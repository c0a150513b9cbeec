"""`ovfast ops`: list, new and test, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_harness import Ovfast


def test_list(ovfast_command: Ovfast) -> None:
    result = ovfast_command("ops", "list", "--json")
    listed = {one["name"]: one["devices"] for one in json.loads(result.out)["operations"]}
    assert listed["SwiGLU"] == ["CPU", "GPU"]
    assert listed["FullyConnected"] == ["CPU"]
    assert Path(json.loads(result.out)["kernels"]).is_file()
    assert "SwiGLU" in ovfast_command("ops", "list").out


def test_own_operation_on_the_cpu(ovfast_command: Ovfast) -> None:
    result = ovfast_command("ops", "test", "AddRMSNorm", "--json")
    assert result.code == 0, result.err
    (one,) = json.loads(result.out)["results"]
    assert one["passed"] and 0 < one["worst"]["f32"] < 2e-6


def test_new_operation(ovfast_command: Ovfast, tmp_path: Path) -> None:
    folder = tmp_path / "SoftClip"
    result = ovfast_command("ops", "new", "SoftClip", "-o", str(folder))
    assert result.code == 0, result.err
    assert f"ovfast ops test {folder}" in result.out
    text = (folder / "soft_clip.cl").read_text()
    (folder / "check.py").write_text((folder / "check.py").read_text().replace("np.abs(x)", "x"))
    result = ovfast_command("ops", "test", str(folder))
    assert result.code == 1
    assert "FAULT SoftClip" in result.out and "wrong numbers" in result.out
    assert (folder / "soft_clip.cl").read_text() == text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FullyConnected", "'FullyConnected' runs on the CPU alone"),
        ("Nothing", "'Nothing' is neither folder nor operation; expected a folder, all, or one of"),
    ],
)
def test_names_that_cannot_be_tested(ovfast_command: Ovfast, name: str, message: str) -> None:
    result = ovfast_command("ops", "test", name)
    assert result.code == 2
    assert message in result.err
