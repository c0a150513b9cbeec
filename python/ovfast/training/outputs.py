"""What a model returns, as a list of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["flatten"]


def flatten(outputs: Any) -> list[torch.Tensor]:
    """Return the tensors in a model's outputs: tuples, dicts and what derives from them."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [tensor for part in outputs for tensor in flatten(part)]
    return []
