"""A progress bar on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Bar"]


class Bar:
    """A progress bar that goes from 0 to 1, with what is being done behind it.

    It appears with the first step that is shown, and only where stderr is a terminal.
    """

    def __init__(self, name: str, progress: bool) -> None:
        """Draw nothing yet; nothing at all unless `progress`."""
        self._name = name
        # None: only where stderr is a terminal.
        self._disable = None if progress else True
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> Bar:
        """Return the bar itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def show(self, fraction: float, what: str) -> None:
        """Go to `fraction`, never back, and say what is being done."""
        if self._bar is None:
            self._bar = tqdm(
                total=100,
                desc=self._name,
                disable=self._disable,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
                leave=False,
                postfix=what,
            )
        self._bar.update(max(0, round(fraction * 100) - self._bar.n))
        if what != self._what:
            self._what = what
            self._bar.set_postfix_str(what)
