"""Compression while training: int8 and int4 with fake quantization, pruning of weights and filters.

Works on torch modules and an ordinary training loop; the results are exported to OpenVINO:

    from ovfast import training

    model = training.prepare_qat(model, (images for images, _ in loader))
    ...  # train it like any other module
    training.export_model(model, images, "digits-int8")

Needs `pip install 'ovfast[training]'`. docs/training.md is the guide.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovfast.training.checkpoint import load_checkpoint, save_checkpoint
    from ovfast.training.export import TrainingExport, export_model
    from ovfast.training.filters import FilterPruning, prune_filters
    from ovfast.training.lora import distillation_loss, lora_parameter_groups, prepare_lora_qat
    from ovfast.training.pruning import (
        PruningSchedule,
        Sparsity,
        adapt_batch_norm,
        bake_pruning,
        prepare_pruning,
        sparsity,
    )
    from ovfast.training.qat import prepare_qat

__all__ = [
    "FilterPruning",
    "PruningSchedule",
    "Sparsity",
    "TrainingExport",
    "adapt_batch_norm",
    "bake_pruning",
    "distillation_loss",
    "export_model",
    "load_checkpoint",
    "lora_parameter_groups",
    "prepare_lora_qat",
    "prepare_pruning",
    "prepare_qat",
    "prune_filters",
    "save_checkpoint",
    "sparsity",
]

# NNCF reports its use over the network, except where this is set.
os.environ.setdefault("NNCF_CI", "1")

# Name -> the module in which it lives: torch is imported with the first that is used.
_MODULES = {
    "FilterPruning": "filters",
    "PruningSchedule": "pruning",
    "Sparsity": "pruning",
    "TrainingExport": "export",
    "adapt_batch_norm": "pruning",
    "bake_pruning": "pruning",
    "distillation_loss": "lora",
    "export_model": "export",
    "load_checkpoint": "checkpoint",
    "lora_parameter_groups": "lora",
    "prepare_lora_qat": "lora",
    "prepare_pruning": "pruning",
    "prepare_qat": "qat",
    "prune_filters": "filters",
    "save_checkpoint": "checkpoint",
    "sparsity": "pruning",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ovfast.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ovfast.training.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
