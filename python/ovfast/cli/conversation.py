"""The messages of a conversation."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

__all__ = ["Conversation"]

Message = dict[str, str]


class Conversation:
    """A system message and turns; a turn is what the user said and what was answered."""

    def __init__(self, system: str | None = None) -> None:
        """Begin with no turns."""
        self.system = system
        self._turns: list[list[Message]] = []

    @property
    def messages(self) -> list[Message]:
        """All messages, oldest first."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return first + [message for turn in self._turns for message in turn]

    @property
    def turns_before_the_last(self) -> int:
        """Turns that can be dropped while the last message stays."""
        return max(len(self._turns) - 1, 0)

    def ask(self, text: str) -> None:
        """Begin a turn with the user's message."""
        self._turns.append([{"role": "user", "content": text}])

    def answered(self, text: str) -> None:
        """End the turn with the answer."""
        self._turns[-1].append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Remove the last turn."""
        self._turns.pop()

    def drop_oldest(self) -> bool:
        """Remove the oldest turn; False when only the last one is left, which stays."""
        if not self.turns_before_the_last:
            return False
        del self._turns[0]
        return True

    def reset(self) -> None:
        """Remove all turns; the system message stays."""
        self._turns.clear()

    def save(self, file: str | Path) -> None:
        """Write {"messages": [...]} to `file`, whole or not at all."""
        path = Path(file).expanduser()
        text = json.dumps({"messages": self.messages}, ensure_ascii=False, indent=2) + "\n"
        try:
            self._write(path, text)
        except OSError as error:  # people know nothing of a temporary file
            raise OSError(error.errno, error.strerror, str(path)) from error

    @staticmethod
    def _write(path: Path, text: str) -> None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as output:
                output.write(text)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
