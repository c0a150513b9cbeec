"""Token ids of real text for measuring quality: code, documentation, and chats with answers."""

from __future__ import annotations

import random
from pathlib import Path
from pydoc_data.topics import topics

import openvino as ov
from prompts import PromptSource

from ovfast._openvino import tokenizers_extension
from ovfast.model_dir import ModelDir
from ovfast.reference import ReferenceLLM

_LENGTH = 256
_QUESTION = 96
_ASKS = (
    "What does this code do?",
    "Write unit tests for this code.",
    "Are there errors in this code? Explain.",
    "Document this code in German.",
)


def texts(model_dir: Path, positions: int, *, skipped: int) -> list[list[int]]:
    """Make texts of up to 256 tokens, in turn of code, documentation and chats with answers.

    `model_dir` is a stock directory: its tokenizer cuts the text, its model answers the chats,
    greedily. Each text counts for its length less `skipped`; together they have `positions`.
    """
    source = PromptSource(model_dir)
    core = ov.Core()
    core.add_extension(str(tokenizers_extension()))
    tokenizer = core.compile_model(model_dir / "openvino_tokenizer.xml", "CPU")
    detokenizer = core.compile_model(model_dir / "openvino_detokenizer.xml", "CPU")
    checked = ModelDir.check(model_dir)
    template = checked.load_chat_template()
    documents = sorted(text for text in topics.values() if len(text) > 8 * _LENGTH)
    llm = ReferenceLLM(model_dir)
    made: list[list[int]] = []
    while (missing := positions - sum(len(ids) - skipped for ids in made)) > 0:
        number = len(made)
        if number % 3 == 0:
            ids = source.prompt(_LENGTH, f"text {number}")
        elif number % 3 == 1:
            text = random.Random(number).choice(documents)
            ids = tokenizer([text])["input_ids"][0, :_LENGTH].tolist()
        else:
            code = detokenizer([source.prompt(_QUESTION, f"text {number}")])["string_output"][0]
            question = f"{_ASKS[number // 3 % len(_ASKS)]}\n```python\n{code}\n```"
            chat = template.render([{"role": "user", "content": question}])
            ids = tokenizer([chat])["input_ids"][0].tolist()
            ids += llm.generate(ids, _LENGTH - len(ids), checked.eos_token_ids).token_ids
        made.append(ids[: max(missing + skipped, 2)])
    return made
