"""The search among recipes, with measurements that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Ovfast
from test_export_faults import content

import ovfast
from ovfast import Error
from ovfast.model_dir import ModelDir
from ovfast.quantize import search as searching
from ovfast.quantize.recipes import RECIPES
from ovfast.quantize.search import CLASSES, Trial, search

pytest.importorskip("nncf")
pytest.importorskip("matplotlib")

# KL and tokens per second of each recipe, as the tests have it.
MEASURED = {
    "int4-all": (0.9, 100.0),
    "int4-g128": (0.2, 90.0),
    "int4-awq": (0.1, 80.0),
    "int8-sym": (0.02, 51.0),
    "int8": (0.01, 50.0),
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = (("int4-all",), ("int4-g128", "int4-awq"), ("int8-sym", "int8"))
    monkeypatch.setattr(searching, "CLASSES", classes)


@pytest.fixture
def find(tiny_stock_dirs: dict[str, Path], tmp_path: Path) -> Callable[..., Any]:
    def run(**options: Any) -> Any:
        def measure(candidate: Path, source: Path) -> tuple[float, float, float]:
            assert source == tiny_stock_dirs["qwen2"]
            ModelDir.check(candidate)
            kl, speed = MEASURED[candidate.name]
            return kl, 1 - kl, speed

        return search(
            tiny_stock_dirs["qwen2"], tmp_path / "q", progress=False, measure=measure, **options
        )

    return run


def names(trials: list[Trial]) -> list[str]:
    return [trial.recipe for trial in trials]


def test_the_fastest_that_is_close_enough(find: Callable[..., Any], tmp_path: Path) -> None:
    told: list[Trial] = []
    found = find(max_kl=0.15, report=told.append)
    assert names(found.trials) == ["int4-all", "int4-g128", "int4-awq"]
    assert told == found.trials
    assert [trial.passed for trial in found.trials] == [False, False, True]
    assert found.trials[0].reason == "KL above 0.15"
    assert found.result.recipe == "int4-awq"
    assert found.result.model_dir == tmp_path / "q"
    assert content(tmp_path) == ["q"]
    ModelDir.check(tmp_path / "q")
    table = json.loads((tmp_path / "q" / "search.json").read_text())
    assert table["kept"] == "int4-awq"
    assert len(table["trials"]) == 3
    assert (tmp_path / "q" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert not any(path.is_dir() for path in (tmp_path / "q").iterdir())
    with ovfast.LLM(tmp_path / "q", progress=False) as llm:
        assert llm.generate("a", max_new_tokens=2, ignore_eos=True).token_ids


def test_of_one_class_the_fastest(find: Callable[..., Any]) -> None:
    """Both pass; the first is faster, though the second is closer."""
    found = find(max_kl=0.3)
    assert found.result.recipe == "int4-g128"
    assert names(found.trials) == ["int4-all", "int4-g128", "int4-awq"]


def test_of_equally_fast_ones_the_closest(find: Callable[..., Any]) -> None:
    """2 % of speed are noise."""
    found = find(max_kl=0.05)
    assert names(found.trials)[-2:] == ["int8-sym", "int8"]
    assert found.result.recipe == "int8"


def test_the_closest_that_is_small_enough(find: Callable[..., Any]) -> None:
    """The 8-bit ones take 420 KB, the 4-bit ones 276."""
    found = find(target_size="300KB")
    # 8 bits without zero points are too large by far, so with them nothing is tried.
    assert names(found.trials) == ["int8-sym", "int4-g128", "int4-awq"]
    assert found.trials[0].reason == "larger than 0.3 MB"
    assert found.trials[0].kl_mean is None  # not worth measuring
    assert found.result.recipe == "int4-awq"


def test_none_passes(find: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(Error, match="(?s)no recipe passes:\nrecipe .*int4-all .*int8 .*KL above"):
        find(max_kl=0.001)
    assert content(tmp_path) == []
    # Larger classes are not tried when one is too large.
    with pytest.raises(Error) as error:
        find(max_kl=0.3, target_size="250KB")
    assert "int4-g128" in str(error.value)
    assert "int8" not in str(error.value)


def test_what_is_there_is_not_replaced(find: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not a model directory"):
        find(max_kl=0.3)
    assert content(tmp_path) == ["q"]


@pytest.mark.parametrize(
    "options", [{"max_kl": 0}, {"max_kl": float("nan")}, {"max_kl": 1, "positions": 0}]
)
def test_bounds_that_mean_nothing(find: Callable[..., Any], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_kl: expected|positions: expected"):
        find(**options)


def test_command(
    tiny_stock_dirs: dict[str, Path],
    tmp_path: Path,
    ovfast_command: Ovfast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the real measurement: random weights in 8 bits are close to the original."""
    monkeypatch.setattr(searching, "CLASSES", (("int8",),))
    out = str(tmp_path / "q")
    result = ovfast_command(
        *("quantize", str(tiny_stock_dirs["qwen2"]), "-o", out, "--max-kl", "0.1"),
        *("--positions", "50", "--json", "--no-progress"),
    )
    assert result.code == 0, result.err
    answer = json.loads(result.out)
    assert answer["model_dir"] == out
    (trial,) = answer["trials"]
    assert trial["recipe"] == "int8"
    assert 0 < trial["kl_mean"] < 0.1
    assert trial["tokens_per_second"] > 0


def test_classes_are_recipes() -> None:
    assert {name for recipes in CLASSES for name in recipes} <= set(RECIPES)
