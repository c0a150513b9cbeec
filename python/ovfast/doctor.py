"""What works on this machine, and how to mend what does not.

It has to work where the rest does not: everything that could fail or crash, the extension module
first of all, is tried in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ovfast._openvino import fault, find_openvino, tokenizers_extension

__all__ = ["Check", "Diagnosis", "Status", "diagnose"]

Status = Literal["ok", "warning", "fault"]

_GIB = 1 << 30
_PROBE_SECONDS = 60
_GPU_SECONDS = 300  # kernels are compiled, some for each shape
_LOW_MEMORY = 1 * _GIB
_LOW_DISK = 2 * _GIB

# Runs in the other process, with this one's module path. Its answer is the last line, since
# libraries may print.
_PROBE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import ovfast.doctor
print(json.dumps(getattr(ovfast.doctor, sys.argv[2])()))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    summary: str
    fix: str | None = None
    """What mends it; None when there is nothing to mend."""
    data: dict[str, Any] = field(default_factory=dict)
    """The figures behind the summary, sizes in bytes."""


@dataclass(frozen=True)
class Diagnosis:
    """All checks, in the order in which they build on each other."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken; warnings do not count."""
        return all(check.status != "fault" for check in self.checks)

    @property
    def verdict(self) -> str:
        """One line."""
        faults = sum(check.status == "fault" for check in self.checks)
        warnings = sum(check.status == "warning" for check in self.checks)
        if faults:
            return f"{faults} broken, {warnings} to look at."
        return f"Works; {warnings} to look at." if warnings else "All is well."

    def to_dict(self) -> dict[str, Any]:
        """Return what `ovfast doctor --json` prints."""
        return {
            "healthy": self.healthy,
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
        }


def diagnose() -> Diagnosis:
    """Check this installation and this machine. Raises nothing for what is broken."""
    core = _probe("core_report")
    return Diagnosis(
        (
            _check_python(),
            _check_ovfast(),
            _check_openvino(),
            _check_tokenizers(),
            _check_genai(),
            _check_dependencies(),
            _check_core(core),
            *_check_host(core),
            *_check_devices(),
            *_check_cache(core),
        )
    )


def core_report() -> dict[str, Any]:
    """Load the extension module and tell what it says; runs in a process of its own."""
    try:
        from ovfast import _core
    except ImportError as error:
        return {"error": str(error)}
    limits = _core.read_host_limits()
    names = ("processors", "affinity", "cpu_quota", "threads", "memory_total", "memory_available")
    return {
        "built": _core.openvino_built_version(),
        "loaded": _core.openvino_loaded_version(),
        **{name: getattr(limits, name) for name in (*names, "memory_limit", "cpu_name")},
        "isa": list(limits.isa),
        **_kernels_report(),
    }


def _kernels_report() -> dict[str, Any]:
    from ovfast import _core

    return {"kernels": _core.supported_isas(), "forced": os.environ.get("OVFAST_FORCE_ISA") or None}


def devices_report() -> dict[str, Any]:
    """List OpenVINO's devices, name -> full name; runs in a process of its own."""
    try:
        import openvino as ov

        core = ov.Core()
        return {
            "devices": {
                name: str(core.get_property(name, "FULL_DEVICE_NAME"))
                for name in core.available_devices
            }
        }
    except (ImportError, RuntimeError) as error:
        return {"error": str(error)}


def kernels_on_gpu_report() -> dict[str, Any]:
    """Compile and run ovfast's OpenCL kernels; runs in a process of its own."""
    try:
        from ovfast.gpu import check

        return {"checks": [asdict(one) for one in check()]}
    except (ImportError, RuntimeError) as error:
        return {"error": str(error)}


def _probe(function: str, seconds: float | None = None) -> dict[str, Any]:
    """Run `function` of this module in another process; {"error": ...} when it dies."""
    seconds = _PROBE_SECONDS if seconds is None else seconds
    command = [sys.executable, "-c", _PROBE, json.dumps(sys.path), function]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {seconds} s"}
    if result.returncode < 0:
        return {"error": f"crashed with {signal.Signals(-result.returncode).name}"}
    if result.returncode > 0:
        return {"error": (result.stderr.strip().splitlines() or ["failed silently"])[-1]}
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def _check_python() -> Check:
    system, machine = platform.system(), platform.machine()
    summary = f"{platform.python_version()} on {system} {machine} ({sys.executable})"
    if (system, machine) != ("Linux", "x86_64"):
        return Check("python", "fault", summary, "use Linux on x86_64; nothing else is supported")
    return Check("python", "ok", summary)


def _check_ovfast() -> Check:
    try:
        from ovfast._build import OPENVINO_VERSION, VERSION
    except ImportError:
        return Check(
            "ovfast", "fault", f"not built ({Path(__file__).parent})", "pip install <source tree>"
        )
    data = {"version": VERSION, "openvino": OPENVINO_VERSION}
    summary = f"{VERSION}, built against OpenVINO {OPENVINO_VERSION} ({Path(__file__).parent})"
    return Check("ovfast", "ok", summary, data=data)


def _check_openvino() -> Check:
    found = find_openvino()
    where = f"{found.version or 'unknown version'} ({found.libraries.parent})" if found else ""
    data = {"version": found.version if found else None}
    try:
        from ovfast._build import OPENVINO_LIBRARY, OPENVINO_VERSION
    except ImportError:
        return Check("openvino", "ok" if found else "fault", where or "not installed", data=data)
    message = fault(found, OPENVINO_VERSION, OPENVINO_LIBRARY)
    if message is None:
        return Check("openvino", "ok", where, data=data)
    problem, fix = _split_fix(message)
    return Check("openvino", "fault", problem, fix, data)


def _check_tokenizers() -> Check:
    try:
        tokenizers_extension()
    except ImportError as error:
        problem, fix = _split_fix(str(error))
        return Check("tokenizers", "fault", problem, fix)
    version = _version("openvino-tokenizers")
    openvino = _version("openvino")
    data = {"version": version}
    if version and openvino and version.rsplit(".", 1)[0] != openvino:
        return Check(
            "tokenizers",
            "fault",
            f"openvino-tokenizers {version} does not go with OpenVINO {openvino}",
            f"pip install openvino-tokenizers=={openvino}.0",
            data,
        )
    return Check("tokenizers", "ok", f"openvino-tokenizers {version}", data=data)


def _check_genai() -> Check:
    version = _version("openvino-genai")
    openvino = _version("openvino")
    data = {"version": version}
    if version is None:
        return Check("genai", "ok", "not installed (optional, for benchmarks)", data=data)
    if openvino and version.rsplit(".", 1)[0] != openvino:
        return Check(
            "genai",
            "warning",
            f"openvino-genai {version} does not go with OpenVINO {openvino}",
            f"pip install openvino-genai=={openvino}.0",
            data,
        )
    return Check("genai", "ok", f"openvino-genai {version} (optional)", data=data)


def _check_dependencies() -> Check:
    try:
        required = importlib.metadata.requires("ovfast") or []
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", "warning", "ovfast is not installed as a package", "pip install .")
    names = [
        re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]
        for text in required
        if "extra ==" not in text
    ]
    missing = [name for name in names if _version(name) is None]
    data = {name: _version(name) for name in names}
    if missing:
        fix = f"pip install {' '.join(missing)}"
        return Check("packages", "fault", f"missing: {', '.join(missing)}", fix, data)
    return Check("packages", "ok", f"all {len(names)} installed", data=data)


def _check_core(core: dict[str, Any]) -> Check:
    if "error" in core:
        problem, fix = _split_fix(core["error"])
        return Check("core", "fault", f"cannot be loaded: {problem}", fix or "pip install ovfast")
    data = {"built": core["built"], "loaded": core["loaded"]}
    return Check("core", "ok", f"loaded OpenVINO {core['loaded']}", data=data)


def _check_host(core: dict[str, Any]) -> Iterator[Check]:
    if "error" in core:
        return
    isa = core["isa"]
    data = {"name": core["cpu_name"], "isa": isa}
    summary = f"{core['cpu_name']}: {' '.join(isa) or 'no vector extensions'}"
    if "avx2" in isa:
        yield Check("cpu", "ok", summary, data=data)
    else:
        fix = "run on a processor with AVX2; inside a virtual machine, pass the host's CPU through"
        yield Check("cpu", "warning", f"{summary}; without AVX2 all is slow", fix, data)

    kernels, forced = core["kernels"], core["forced"]
    data = {"supported": kernels, "forced": forced}
    summary = f"instruction sets: {', '.join(kernels)}"
    if forced is None:
        yield Check("kernels", "ok", summary, data=data)
    elif forced in kernels:
        yield Check("kernels", "ok", f"{summary}; OVFAST_FORCE_ISA is {forced}", data=data)
    else:
        fix = f"set OVFAST_FORCE_ISA to one of {', '.join(kernels)}, or unset it"
        problem = f"OVFAST_FORCE_ISA is '{forced}', which this machine cannot run"
        yield Check("kernels", "fault", problem, fix, data)

    data = {name: core[name] for name in ("processors", "affinity", "cpu_quota", "threads")}
    quota = f"{core['cpu_quota']:g} CPUs" if core["cpu_quota"] else "none"
    yield Check(
        "threads",
        "ok",
        f"{core['threads']} used ({core['processors']} processors, affinity {core['affinity']}, "
        f"cgroup quota {quota})",
        data=data,
    )

    total, available, limit = (core[f"memory_{name}"] for name in ("total", "available", "limit"))
    data = {"total": total, "available": available, "limit": limit}
    summary = (
        f"{_gib(available)} available of {_gib(total)}, "
        f"cgroup limit {_gib(limit) if limit else 'none'}"
    )
    if available < _LOW_MEMORY:
        fix = "close other programs or raise the container's memory limit"
        yield Check("memory", "warning", summary, fix, data)
    else:
        yield Check("memory", "ok", summary, data=data)


def _check_devices() -> Iterator[Check]:
    report = _probe("devices_report")
    if "error" in report:
        yield Check(
            "devices",
            "fault",
            f"OpenVINO cannot list them: {report['error']}",
            "pip install --force-reinstall openvino",
        )
        return
    devices: dict[str, str] = report["devices"]
    summary = "; ".join(f"{name}: {full}" for name, full in devices.items()) or "none"
    if "CPU" not in devices:
        fix = "pip install --force-reinstall openvino"
        yield Check("devices", "fault", f"no CPU device ({summary})", fix, devices)
    else:
        yield Check("devices", "ok", summary, data=devices)
    if any(name.startswith("GPU") for name in devices):
        yield _check_kernels_on_gpu()
    elif list(Path("/dev/dri").glob("render*")):
        yield Check(
            "gpu",
            "warning",
            "there is a graphics device that OpenVINO does not see",
            "install Intel's compute runtime (intel-opencl-icd) and join the group 'render'",
        )


def _check_kernels_on_gpu() -> Check:
    report = _probe("kernels_on_gpu_report", _GPU_SECONDS)
    fix = "update the GPU's driver; `ovfast ops test all --device GPU` shows more"
    if "error" in report:
        return Check("gpu kernels", "fault", f"cannot be checked: {report['error']}", fix)
    data = {one["operation"]: one for one in report["checks"]}
    wrong = [one for one in report["checks"] if not one["passed"]]
    if wrong:
        first = wrong[0]["summary"].splitlines()[0]
        names = ", ".join(one["operation"] for one in wrong)
        return Check("gpu kernels", "fault", f"{names} failed: {first}", fix, data)
    seconds = sum(one["seconds"] for one in report["checks"])
    summary = f"{', '.join(data)} agree with NumPy ({seconds:.0f} s)"
    return Check("gpu kernels", "ok", summary, data=data)


def _check_cache(core: dict[str, Any]) -> Iterator[Check]:
    if "error" in core:
        return
    from ovfast.cache import cache_dir

    directory = cache_dir()
    # It is made on first use: what counts before is whether it can be.
    fix = "set OVFAST_CACHE to a folder that you can write to"
    try:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        yield Check("cache", "fault", f"{directory} cannot be used: {error.strerror}", fix)
        return
    data = {"path": os.fspath(directory), "free": free}
    summary = f"{directory}, {_gib(free)} free"
    if free < _LOW_DISK:
        fix = "free disk space, or set OVFAST_CACHE to a folder on a larger disk"
        yield Check("cache", "warning", summary, fix, data)
    else:
        yield Check("cache", "ok", summary, data=data)


def _split_fix(message: str) -> tuple[str, str | None]:
    """Cut "what is wrong. Install it with: command" into the problem and the command."""
    problem, found, command = message.rpartition(" with: ")
    if not found:
        return message, None
    return problem.rpartition(". ")[0] or problem, command


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
