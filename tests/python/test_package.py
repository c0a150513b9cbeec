"""What `import ovfast` costs, gives and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ovfast
from ovfast import _core, _openvino
from ovfast._build import OPENVINO_LIBRARY, OPENVINO_VERSION, VERSION

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, with `paths` in front of its module path."""
    prefix = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", prefix + code], capture_output=True, text=True, check=False
    )


def modules_after(code: str) -> set[str]:
    result = run_python(f"{code}\nimport json\nprint(json.dumps(sorted(sys.modules)))")
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


def fake_openvino(folder: Path, version: str, library: str | None) -> Path:
    """Write a package `openvino` of that version whose library is an empty file."""
    (folder / "openvino" / "libs").mkdir(parents=True)
    (folder / "openvino" / "__init__.py").write_text("")
    if library is not None:
        (folder / "openvino" / "libs" / library).write_text("")
    info = folder / f"openvino-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: openvino\nVersion: {version}\n")
    return folder


def test_import_loads_nothing_heavy() -> None:
    loaded = modules_after("import ovfast; ovfast.__version__; ovfast.cmake_dir()")
    heavy = {"torch", "transformers", "openvino", "numpy", "click", "jinja2", "ovfast._core"}
    assert not loaded & heavy


def test_llm_class_needs_no_training_framework() -> None:
    loaded = modules_after("from ovfast import LLM")
    assert "ovfast._core" in loaded
    assert not loaded & {"torch", "transformers", "openvino", "gguf"}


def test_every_export_resolves() -> None:
    for name in ovfast.__all__:
        assert getattr(ovfast, name) is not None
        assert name in dir(ovfast)


def test_lazy_names_are_the_exports() -> None:
    assert set(ovfast._LAZY) | {"cmake_dir"} == set(ovfast.__all__)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="'ovfast' has no attribute 'nothing'"):
        _ = ovfast.nothing  # type: ignore[attr-defined]


def test_versions_agree() -> None:
    assert ovfast.__version__ == VERSION == _core.version()
    assert _core.openvino_built_version() == OPENVINO_VERSION
    assert _core.openvino_loaded_version().startswith(OPENVINO_VERSION)


def test_every_pin_names_one_openvino() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    pins = re.findall(r'"openvino(?:-tokenizers|-genai)?==(\d+\.\d+\.\d+)', pyproject)
    cmake = (ROOT / "cmake" / "OpenVINOFromWheel.cmake").read_text()
    assert len(pins) >= 5
    assert {*pins, *re.findall(r"set\(OVFAST_OPENVINO_VERSION ([\d.]+)\)", cmake)} == {
        OPENVINO_VERSION
    }


def test_build_group_covers_the_build_requirements() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    required = re.search(r"^requires = \[(.*)\]$", pyproject, re.MULTILINE)
    group = re.search(r"^build = \[(.*)\]$", pyproject, re.MULTILINE)
    assert required is not None
    assert group is not None
    assert set(required[1].split(", ")) <= set(group[1].split(", "))


def test_errors_are_the_cores() -> None:
    assert issubclass(ovfast.ModelError, ovfast.Error)
    assert issubclass(ovfast.CapacityError, ovfast.Error)
    assert issubclass(ovfast.Error, RuntimeError)
    assert ovfast.ModelError is _core.ModelError
    with pytest.raises(ovfast.ModelError, match="no-such-file"):
        _core.read_gguf_header("no-such-file.gguf")


def test_cmake_dir_holds_the_package() -> None:
    directory = Path(ovfast.cmake_dir())
    assert (directory / "ovfastConfig.cmake").is_file()
    assert (directory.parents[2] / "include" / "ovfast" / "engine.hpp").is_file()


def test_typed() -> None:
    assert (Path(ovfast.__file__).parent / "py.typed").is_file()
    assert (Path(ovfast.__file__).parent / "_core.pyi").is_file()


def test_another_openvino_is_refused(tmp_path: Path) -> None:
    path = fake_openvino(tmp_path, "2025.1.0", "libopenvino.so.2510")
    for statement in ("from ovfast import LLM", "import ovfast; ovfast.SamplingParams"):
        result = run_python(statement, path)
        assert result.returncode == 1
        last = result.stderr.splitlines()[-1]
        assert last.startswith("ImportError: ovfast cannot load: this ovfast was built against")
        assert last.endswith(f"2025.1.0 is installed. Install the matching one with: "
                             f"pip install openvino=={OPENVINO_VERSION}")  # fmt: skip


def test_a_broken_openvino_is_refused(tmp_path: Path) -> None:
    lacking = fake_openvino(tmp_path / "lacking", OPENVINO_VERSION, None)
    result = run_python("from ovfast import _core", lacking)
    assert f"lacks {OPENVINO_LIBRARY}" in result.stderr.splitlines()[-1]
    assert "pip install --force-reinstall openvino==" in result.stderr

    damaged = fake_openvino(tmp_path / "damaged", OPENVINO_VERSION, OPENVINO_LIBRARY)
    result = run_python("from ovfast import _core", damaged)
    assert result.stderr.splitlines()[-1].startswith("ImportError: ovfast cannot load: ")
    assert "pip install --force-reinstall openvino==" in result.stderr


def test_fault_of_a_missing_openvino() -> None:
    message = _openvino.fault(None, "1.2.3", "lib.so")
    assert message is not None
    assert message.endswith("pip install openvino==1.2.3")


def test_no_fault_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_text("")
    found = _openvino.InstalledOpenVINO(None, tmp_path)
    assert _openvino.fault(found, "1.2.3", "lib.so") is None
    assert _openvino.fault(found, "1.2.3", "other.so") is not None


def test_the_extension_module_is_imported_through_the_package() -> None:
    # `from ovfast._core import ...` would skip the check of OpenVINO.
    for source in (ROOT / "python" / "ovfast").rglob("*.py"):
        at_run_time = source.read_text().split("if TYPE_CHECKING:")
        direct = re.compile(r"^(from ovfast\._core import|import ovfast\._core)", re.MULTILINE)
        assert not direct.search(at_run_time[0]), source


def test_dir_shows_the_public_names() -> None:
    assert dir(ovfast) == sorted(ovfast.__all__)
