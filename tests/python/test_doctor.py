"""The doctor: what it says of a healthy installation, and of each fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ovfast import doctor
from ovfast._build import OPENVINO_VERSION
from ovfast.doctor import Check, Diagnosis

HEALTHY_CORE: dict[str, Any] = {
    "built": "2026.4.1",
    "loaded": "2026.4.1-1-abc",
    "processors": 8,
    "affinity": 4,
    "cpu_quota": 1.5,
    "threads": 2,
    "memory_total": 16 << 30,
    "memory_available": 8 << 30,
    "memory_limit": 12 << 30,
    "cpu_name": "Some CPU",
    "isa": ["avx2", "avx512_vnni"],
    "kernels": ["scalar", "avx2"],
    "forced": None,
}


def run_doctor(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ovfast", "doctor", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def by_name(checks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in checks}


def test_this_installation_is_healthy(tmp_path: Path) -> None:
    result = run_doctor("--json", OVFAST_CACHE=str(tmp_path / "not" / "yet"))
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["healthy"] is True
    checks = by_name(report["checks"])
    assert checks["openvino"]["data"]["version"] == OPENVINO_VERSION
    assert checks["core"]["data"]["loaded"].startswith(OPENVINO_VERSION)
    assert "CPU" in checks["devices"]["data"]
    assert 1 <= checks["threads"]["data"]["threads"] <= checks["threads"]["data"]["processors"]
    assert checks["cache"]["data"]["free"] > 0
    assert not (tmp_path / "not").exists()


def test_text_names_the_fault_and_its_fix(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = run_doctor(OVFAST_CACHE=str(blocked))
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("fault"))
    assert "cache" in lines[at]
    assert str(blocked) in lines[at]
    assert "fix: set OVFAST_CACHE" in lines[at + 1]
    assert lines[-1].startswith("1 broken")


def test_works_with_the_wrong_openvino(tmp_path: Path) -> None:
    libraries = tmp_path / "openvino" / "libs"
    libraries.mkdir(parents=True)
    (tmp_path / "openvino" / "__init__.py").write_text("")
    info = tmp_path / "openvino-2025.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2025.1.0\n")
    result = run_doctor("--json", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == ""
    checks = by_name(json.loads(result.stdout)["checks"])
    assert checks["openvino"]["status"] == "fault"
    assert checks["openvino"]["fix"] == f"pip install openvino=={OPENVINO_VERSION}"
    assert checks["core"]["status"] == "fault"
    assert checks["core"]["fix"] == f"pip install openvino=={OPENVINO_VERSION}"
    assert checks["tokenizers"]["status"] == "fault"


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("import os; os.kill(os.getpid(), 4)", {"error": "crashed with SIGILL"}),
        ("raise KeyError('x')", {"error": "KeyError: 'x'"}),
        ("raise SystemExit(3)", {"error": "failed silently"}),
        ("print('noise'); print('{\"fine\": 1}')", {"fine": 1}),
    ],
)
def test_probes_that_die_are_reported(
    program: str, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_PROBE", program)
    assert doctor._probe("core_report") == answer


def test_a_probe_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_PROBE_SECONDS", 0.2)
    assert doctor._probe("core_report") == {"error": "no answer within 0.2 s"}


def test_core_that_cannot_be_loaded() -> None:
    check = doctor._check_core({"error": "ovfast cannot load: it is gone. Mend it with: pip x"})
    assert (check.status, check.fix) == ("fault", "pip x")
    check = doctor._check_core({"error": "crashed with SIGILL"})
    assert check.status == "fault"
    assert "SIGILL" in check.summary
    assert check.fix is not None


def test_host() -> None:
    cpu, kernels, threads, memory = doctor._check_host(HEALTHY_CORE)
    assert {cpu.status, kernels.status, threads.status, memory.status} == {"ok"}
    assert kernels.summary == "instruction sets: scalar, avx2"
    assert "avx512_vnni" in cpu.summary
    assert threads.summary == "2 used (8 processors, affinity 4, cgroup quota 1.5 CPUs)"
    assert memory.summary == "8.0 GiB available of 16.0 GiB, cgroup limit 12.0 GiB"


@pytest.mark.parametrize(
    ("change", "name"), [({"isa": ["sse4_2"]}, "cpu"), ({"memory_available": 500 << 20}, "memory")]
)
def test_weak_host(change: dict[str, Any], name: str) -> None:
    weak = [check for check in doctor._check_host({**HEALTHY_CORE, **change}) if check.fix]
    assert [(check.name, check.status) for check in weak] == [(name, "warning")]


@pytest.mark.parametrize(("forced", "status"), [("avx2", "ok"), ("amx", "fault")])
def test_a_forced_instruction_set_is_shown(forced: str, status: str) -> None:
    kernels = list(doctor._check_host({**HEALTHY_CORE, "forced": forced}))[1]
    assert kernels.status == status
    assert "OVFAST_FORCE_ISA is" in kernels.summary


@pytest.mark.parametrize("answer", [{"error": "no"}, {"devices": {}}])
def test_devices_without_a_cpu(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda _: answer)
    assert next(doctor._check_devices()).status == "fault"


@pytest.mark.parametrize(
    ("package", "check", "status"),
    [("openvino-genai", "_check_genai", "warning"), ("openvino-tokenizers", "_check_tokenizers", "fault")],
)  # fmt: skip
def test_companions_of_another_release(
    package: str, check: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"openvino": "2026.4.1", package: "2026.3.0.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    found = getattr(doctor, check)()
    assert (found.status, found.fix) == (status, f"pip install {package}==2026.4.1.0")


def test_genai_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", {"openvino": "2026.4.1"}.get)
    assert doctor._check_genai().status == "ok"


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: [
        "present>=1", "gone!=2,>=1", "extra-only; extra == 'test'"
    ])  # fmt: skip
    monkeypatch.setattr(doctor, "_version", {"present": "1.0"}.get)
    check = doctor._check_dependencies()
    assert (check.status, check.fix) == ("fault", "pip install gone")


def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "_LOW_DISK", 1 << 62)
    (check,) = doctor._check_cache(HEALTHY_CORE)
    assert check.status == "warning"
    assert list(tmp_path.iterdir()) == []


def test_verdicts() -> None:
    fine = Check("a", "ok", "")
    warning = Check("b", "warning", "", "mend")
    broken = Check("c", "fault", "", "mend")
    assert Diagnosis((fine,)).verdict == "All is well."
    assert Diagnosis((fine, warning)).verdict == "Works; 1 to look at."
    assert Diagnosis((fine, warning)).healthy
    assert Diagnosis((broken, warning)).verdict == "1 broken, 1 to look at."
    assert not Diagnosis((broken,)).healthy
