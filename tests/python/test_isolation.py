"""Environments of their own, made from a list with one package that the test builds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from ovfast.errors import Error
from ovfast.export import isolation
from ovfast.export.child import run_child
from ovfast.export.isolation import environment_dir, environment_python, isolated_python

MAKE = "import sys, pathlib\nfrom ovfast.export.isolation import isolated_python\n"
MAKE += "print(isolated_python(pathlib.Path(sys.argv[1]), progress=False))"


def write_wheel(folder: Path) -> None:
    info = "tinything-1.0.dist-info"
    files = {
        "tinything.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "tinything-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isolation")
    write_wheel(folder)
    (folder / "tiny-requirements.txt").write_text("# one\ntinything==1.0\n")
    return folder


@pytest.fixture
def requirements(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list; the cache and its environments are shared by the tests of this file."""
    monkeypatch.setenv("OVFAST_CACHE", str(place / "cache"))
    monkeypatch.setenv("OVFAST_PIP_ARGS", f"--no-index --find-links '{place}'")
    return place / "tiny-requirements.txt"


def run(script: str, *arguments: Path) -> subprocess.Popen[str]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_two_processes_make_one(requirements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_python(requirements) is None
    both = [run(MAKE, requirements) for _ in range(2)]
    answers = {process.communicate(timeout=200)[0] for process in both}
    python = environment_python(requirements)
    assert python is not None and answers == {f"{python}\n"}
    assert [file.name for file in (environment_dir(requirements).parent).iterdir()] == [
        environment_dir(requirements).name
    ]
    # It has what the list names, and nothing of ours.
    probe = (
        "import importlib.util as u, tinything\nprint(tinything.ANSWER, u.find_spec('openvino'))"
    )
    found = subprocess.run([python, "-I", "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout == "42 None\n"
    # No interpreter of a path that is gone.
    assert all(file.name.startswith("python") for file in python.parent.iterdir())
    # There already: pip is not asked again.
    monkeypatch.setenv("OVFAST_PIP_ARGS", "--no-such-option")
    assert isolated_python(requirements, progress=False) == python


def test_a_damaged_one_is_made_again(
    requirements: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = isolated_python(requirements, progress=False)
    (environment_dir(requirements) / "ovfast-environment.json").unlink()
    assert environment_python(requirements) is None
    capsys.readouterr()
    assert isolated_python(requirements) == python
    assert f"rm -r {environment_dir(requirements)}" in capsys.readouterr().err


def test_another_list_is_another_environment(requirements: Path, tmp_path: Path) -> None:
    other = tmp_path / requirements.name
    other.write_text("tinything==2.0\n")
    assert environment_dir(other) != environment_dir(requirements)
    other.write_text("tinything==1.0  # the comment does not count\n")
    assert environment_dir(other) == environment_dir(requirements)


def test_pip_fails(requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "absent-requirements.txt"
    wanted.write_text("no-such-thing==1.0\n")
    # An empty environment takes seconds to make; this test is about what comes after.
    real = isolation.run_child

    def fast(python: Path, arguments: list[str], what: str, **options: object) -> None:
        if arguments[1] == "venv":
            arguments = [*arguments[:2], "--without-pip", "--system-site-packages", *arguments[2:]]
        real(python, arguments, what, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(isolation, "run_child", fast)
    with pytest.raises(Error, match=r"(?s)no-such-thing==1\.0.*OVFAST_PIP_ARGS"):
        isolated_python(wanted, progress=False)
    left = environment_dir(wanted).parent
    assert not any("absent" in file.name for file in left.iterdir())


def test_list_of_optimum_is_locked() -> None:
    lines = isolation._packages(isolation.OPTIMUM_REQUIREMENTS)
    assert all("==" in line.split(";")[0] for line in lines)
    assert "optimum-intel==1.27.0" in lines and "transformers==4.57.6" in lines


CHILD = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(120)
"""


def processes(note: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not note.exists() or not note.read_text():
        assert time.monotonic() < deadline, "the child did not start"
        time.sleep(0.05)
    return [int(pid) for pid in note.read_text().split()]


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60

    def alive(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return False
        return state != "Z"

    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def test_children_end_with_an_interrupt(tmp_path: Path) -> None:
    script, note = tmp_path / "child.py", tmp_path / "pids"
    script.write_text(CHILD)

    def interrupt(lines: list[str]) -> None:
        if note.exists() and note.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(Path(sys.executable), [str(script), str(note)], "waiting", poll=interrupt)
    assert_gone(processes(note))


def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    script, note = tmp_path / "child.py", tmp_path / "pids"
    script.write_text(CHILD)
    parent = run(
        "import sys, pathlib\nfrom ovfast.export.child import run_child\n"
        "run_child(pathlib.Path(sys.executable), sys.argv[1:], 'waiting')",
        script,
        note,
    )
    pids = processes(note)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert_gone(pids)


def test_a_failed_child_tells_its_last_lines(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("for i in range(40): print('line', i)\nraise SystemExit('it went wrong')\n")
    with pytest.raises(Error) as caught:
        run_child(Path(sys.executable), [str(script)], "the work")
    text = str(caught.value)
    assert text.startswith("the work failed (exit code 1)") and "it went wrong" in text
    assert "line 39" in text and "line 3\n" not in text
