"""Prompts of an exact number of tokens, cut from the sources of Python's standard library."""

from __future__ import annotations

import inspect
import random
from functools import cached_property
from importlib import import_module
from pathlib import Path

import openvino as ov

from ovfast._openvino import tokenizers_extension
from ovfast.evaluate.corpus import PYTHON_MODULES


class PromptSource:
    """Cuts prompts with the tokenizer of `model_dir`. Same seed, same prompt."""

    def __init__(self, model_dir: Path) -> None:
        core = ov.Core()
        core.add_extension(str(tokenizers_extension()))
        self._tokenizer = core.compile_model(model_dir / "openvino_tokenizer.xml", "CPU")

    def prompt(self, tokens: int, seed: str) -> list[int]:
        """Make a prompt of exactly `tokens` token ids; another seed begins elsewhere."""
        # The length is part of the seed, or short prompts would be the beginnings of long ones.
        begin = random.Random(f"{seed}, {tokens}").randrange(len(self._lines) - tokens)
        # No line that is not blank has less than one token.
        text = "".join(self._lines[begin : begin + tokens])
        return self._tokenizer([text])["input_ids"][0, :tokens].tolist()

    @cached_property
    def _lines(self) -> list[str]:
        sources = (inspect.getsource(import_module(name)) for name in PYTHON_MODULES)
        lines = "\n".join(sources).splitlines(keepends=True)
        return [line for line in lines if line.strip()]
