"""The READMEs: links lead somewhere, commands exist, examples are Python, both languages agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ovfast.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
READMES = ["README.md", "README.zh-CN.md"]
DOCUMENTS = [*READMES, "CONTRIBUTING.md", "CHANGELOG.md"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> str:
    """All code of a document: fenced blocks and spans."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    missing = [target for target in local if not (ROOT / target).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"\bmake ([a-z-]+)", code((ROOT / name).read_text(encoding="utf-8")))
    assert set(named) <= targets


@pytest.mark.parametrize("name", READMES)
def test_subcommands_exist(name: str) -> None:
    text = code((ROOT / name).read_text(encoding="utf-8"))
    named = re.findall(r"^(?:[$] )?ovfast ([a-z]+)", text, re.MULTILINE)
    assert named
    assert set(named) <= set(cli.list_commands(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", READMES)
def test_python_examples_are_python(name: str) -> None:
    examples = blocks((ROOT / name).read_text(encoding="utf-8"), "python")
    assert examples
    for example in examples:
        ast.parse(example)


def test_both_languages_show_the_same_commands() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    for language in ("sh", "bash", "console", "cmake"):
        assert len(blocks(english, language)) == len(blocks(chinese, language))
    assert len(re.findall(r"^#+ ", english, re.MULTILINE)) == len(
        re.findall(r"^#+ ", chinese, re.MULTILINE)
    )
