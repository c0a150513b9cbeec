"""What every function of this package asks of its arguments and of the environment."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovfast.errors import Error

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "call",
    "check_input",
    "check_model",
    "check_ratio",
    "ignored_scope",
    "load_torchao",
    "require",
]


def require(*packages: str) -> None:
    """Raise Error when one of the packages cannot be imported, before anything heavy is."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Error(
            f"{', '.join(missing)} not installed, which training needs: "
            "pip install 'ovfast[training]'"
        )


def check_model(model: nn.Module) -> None:
    """Raise where NNCF could not put its hooks."""
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.Sequential):
        # NNCF keeps its hooks as a child of the model, and nn.Sequential calls all its children.
        raise TypeError(
            "an nn.Sequential cannot be prepared itself; put it into a module with a forward()"
        )


def check_input(example: Any) -> None:
    """Raise TypeError unless `example` is what a model can be called with."""
    import torch

    if not isinstance(example, torch.Tensor | tuple | dict):
        raise TypeError(
            "expected a tensor, a tuple of positional or a dict of named inputs, got "
            f"{type(example).__name__}"
        )


def check_ratio(name: str, ratio: float) -> None:
    """Raise ValueError unless 0 < ratio < 1."""
    if not 0 < ratio < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {ratio}")


def call(model: nn.Module, example: Any) -> Any:
    """Call a model with a tensor, a tuple of positional or a dict of named inputs."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def ignored_scope(patterns: Sequence[str]) -> Any:
    """Regular expressions over the names of operations, as NNCF wants them; None for none."""
    import nncf

    if isinstance(patterns, str):
        raise TypeError("expected a sequence of patterns, got a single string")
    return nncf.IgnoredScope(patterns=list(patterns)) if patterns else None


def load_torchao() -> None:
    """Import what NNCF strips with, without its warnings about GPU kernels that are not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import torchao.quantization.pt2e.observer  # noqa: F401
    finally:
        logging.disable(before)
