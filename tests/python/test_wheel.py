"""The wheel, in fresh environments outside of the source tree, for Python and for C++."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from ovfast import crypto

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_paths()["platlib"])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("scikit_build_core") is None,
        reason="builds without isolation: pip install --group build",
    ),
]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside of the source tree and of its environment's variables."""
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=keep,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The build directory is that of the installed package, so nothing is compiled twice.
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"),
        *("--wheel-dir", folder, ROOT),
        cwd=folder,
    )
    (built,) = folder.glob("ovfast-*.whl")
    return built


class Environment:
    """A fresh environment that holds the wheel and borrows its dependencies from ours."""

    def __init__(self, folder: Path, wheel: Path, beside: tuple[str, ...]) -> None:
        """Packages named `beside` appear in its own site-packages, all others in ours."""
        venv.create(folder / "venv", symlinks=True)
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site = folder / "venv" / "lib" / version / "site-packages"
        for package in beside:
            for path in (SITE / package, *SITE.glob(f"{package}-*.dist-info")):
                (self.site / path.name).symlink_to(path)
        (self.site / "borrowed.pth").write_text(f"{SITE}\n")
        run(
            *(sys.executable, "-m", "pip", f"--python={self.python}"),
            *("install", "--no-deps", "--no-index", wheel),
            cwd=folder,
        )


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """As after `pip install ovfast`: all in one site-packages."""
    packages = ("openvino", "openvino_tokenizers")
    return Environment(tmp_path_factory.mktemp("beside"), wheel, packages)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """As in an environment with --system-site-packages: OpenVINO lives outside of it."""
    return Environment(tmp_path_factory.mktemp("elsewhere"), wheel, ())


def build_example(environment: Environment, *options: str, folder: str = "") -> Path:
    config = run(
        environment.python, "-c", "import ovfast; print(ovfast.cmake_dir())", cwd=environment.folder
    ).strip()
    assert Path(config).is_relative_to(environment.site)
    build = environment.folder / "build" / (folder or "stream")
    run(
        *("cmake", "-S", ROOT / "examples" / "cpp" / folder, "-B", build, f"-Dovfast_DIR={config}"),
        *options,
        cwd=environment.folder,
    )
    run("cmake", "--build", build, cwd=environment.folder)
    return build / "ovfast-stream"


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = ["__init__.py", "_build.py", "_core.pyi", "py.typed", "lib/libovfast.so"]
    expected += ["lib/cmake/ovfast/ovfastConfig.cmake", "include/ovfast/engine.hpp"]
    expected += ["bin/ovfast-bench"]
    expected += [f"opencl/{path.name}" for path in (ROOT / "cpp" / "opencl").iterdir()]
    files = ROOT / "python" / "ovfast" / "scaffold_files"
    expected += [f"scaffold_files/{path.name}" for path in files.iterdir()]
    assert {f"ovfast/{name}" for name in expected} <= names
    modules = {
        f"ovfast/{path.relative_to(ROOT / 'python' / 'ovfast')}"
        for path in (ROOT / "python" / "ovfast").rglob("*.py")
    }
    assert modules <= names
    # Nothing but the package: no tests, no libraries of others.
    assert all(name.startswith(("ovfast/", "ovfast-")) for name in names)
    assert {n for n in names if ".so" in n and not n.startswith("ovfast/_core.")} == {
        "ovfast/lib/libovfast.so",
        "ovfast/lib/libovfast_ops.so",
    }


def test_wheel_names_no_folder_of_the_build(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith((".cmake", ".py", "METADATA")):
                assert str(ROOT).encode() not in archive.read(name), name


@pytest.mark.parametrize("kind", ["beside", "elsewhere"])
def test_python(kind: str, request: pytest.FixtureRequest) -> None:
    environment: Environment = request.getfixturevalue(kind)
    code = (
        "import ovfast, sys; from ovfast import _core; print(_core.__file__); "
        "print(_core.openvino_loaded_version()); "
        "import openvino as ov; print(ov.get_version()); "
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if '/libopenvino.so.' in l}))"
    )
    lines = run(environment.python, "-c", code, cwd=environment.folder).splitlines()
    assert Path(lines[0]).is_relative_to(environment.site)
    assert lines[1] == lines[2]
    assert lines[3] == "1"
    script = environment.python.parent / "ovfast"
    assert run(script, "--version", cwd=environment.folder).startswith("ovfast ")
    # The binary finds its libraries and OpenVINO's where the wheel put them.
    assert "CPU" in run(script.with_name("ovfast-bench"), "-h", cwd=environment.folder)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake")
def test_cpp_program_beside_openvino(beside: Environment) -> None:
    program = build_example(beside)
    out = run(program, "--help", cwd=beside.folder)
    assert "MODEL_DIR" in out
    assert "OpenVINO 20" in out


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake")
def test_cpp_program_with_openvino_elsewhere(elsewhere: Environment) -> None:
    program = build_example(elsewhere, f"-DOpenVINO_DIR={SITE / 'openvino' / 'cmake'}")
    assert "OpenVINO 20" in run(program, "--help", cwd=elsewhere.folder)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake")
def test_cpp_program_on_an_encrypted_model(
    elsewhere: Environment, tiny_stock_dirs: dict[str, Path]
) -> None:
    cmake = SITE / "openvino" / "cmake"
    build_example(elsewhere, f"-DOpenVINO_DIR={cmake}", folder="encrypted")
    program = elsewhere.folder / "build" / "encrypted" / "ovfast-encrypted"
    key = crypto.Key.generate()
    key.write(elsewhere.folder / "model.key")
    enc = elsewhere.folder / "model.enc"
    crypto.encrypt(tiny_stock_dirs["qwen2"], enc, key, progress=False)
    out = run(program, enc, elsewhere.folder / "model.key", cwd=elsewhere.folder)
    assert out.startswith("logits: [1,1,")
    (enc / "openvino_model.bin.enc").write_bytes(b"")
    result = subprocess.run(
        [program, enc, elsewhere.folder / "model.key"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "openvino_model.bin.enc" in result.stderr
