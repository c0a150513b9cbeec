"""The committed stub describes the extension module that was built."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ovfast import _core

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def make_stub() -> ModuleType:
    pytest.importorskip("pybind11_stubgen", reason="part of the extra 'dev'")
    spec = importlib.util.spec_from_file_location("make_stub", ROOT / "tools" / "make_stub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_stub"] = module
    spec.loader.exec_module(module)
    return module


def test_stub_is_up_to_date(make_stub: ModuleType) -> None:
    changes = make_stub.diff(make_stub.STUB.read_text(encoding="utf-8"), make_stub.generate())
    assert not changes, f"run `make stub`\n{changes}"


def test_stub_names_what_the_module_holds(make_stub: ModuleType) -> None:
    tree = ast.parse(make_stub.STUB.read_text(encoding="utf-8"))
    described = {
        node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    held = {name for name in dir(_core) if not name.startswith("_")}
    assert described == held
    assert {"Engine", "Tokenizer", "SamplingParams", "ModelError"} <= held
