"""What models are asked: our own short questions, or a person's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ovfast.evaluate.corpus import is_jsonl, read_jsonl, read_texts

__all__ = ["PROMPTS", "Prompt", "prompt_of", "read_prompts", "shown"]

Prompt = str | list[dict[str, Any]]
"""Text, or messages of a chat."""

PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "What is the difference between a list and a tuple in Python?",
    "Translate into French: The library opens at nine in the morning.",
    "List three causes of the First World War.",
    "A train leaves at 14:10 and arrives at 16:45. How long does the journey take?",
    "Write an SQL query that counts orders by customer.",
    "Summarize: Bees collect nectar, turn it into honey and store it for the winter.",
    "Write a short, polite email that asks for a meeting next week.",
    "用一句话解释什么是光合作用。",
    "Nenne drei Hauptstädte in Europa und je ein Bauwerk, das man dort sehen kann.",
    "What does this code print?\nfor i in range(3):\n    print(i * i)",
)
"""Short questions of several kinds and languages."""


def read_prompts(path: str | Path | None) -> list[Prompt]:
    """Read prompts: lines of a JSONL file ("prompt" or "messages"), or texts, each whole.

    None takes `PROMPTS`. Raises ValueError, with the line's number, for what is wrong.
    """
    if path is None:
        return list(PROMPTS)
    path = Path(path)
    if not is_jsonl(path):
        return list(read_texts(path))
    prompts = [prompt_of(item, f"'{path}', line {number}") for number, item in read_jsonl(path)]
    if not prompts:
        raise ValueError(f"'{path}' holds no prompts")
    return prompts


def prompt_of(item: dict[str, Any], where: str) -> Prompt:
    """The prompt of a line; `where` it stands begins the message of the ValueError."""
    prompt: Any = item.get("prompt", item.get("messages"))
    is_chat = (
        isinstance(prompt, list)
        and bool(prompt)
        and all(
            isinstance(message, dict) and isinstance(message.get("content"), str)
            for message in prompt
        )
    )
    if not is_chat and not (isinstance(prompt, str) and prompt):
        raise ValueError(
            f"{where}: expected 'prompt' (text) or 'messages' (objects with 'role' and 'content'), "
            f"got {sorted(item)}"
        )
    return prompt  # type: ignore[no-any-return]


def shown(prompt: Prompt) -> str:
    """The prompt as text: of a chat, the last message."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
