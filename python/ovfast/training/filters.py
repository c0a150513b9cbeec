"""Structured pruning: whole filters are removed, so that the network gets smaller and faster."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovfast.errors import Error
from ovfast.training.checks import call, check_input, check_ratio, require
from ovfast.training.outputs import flatten

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FilterPruning", "prune_filters"]


@dataclass(frozen=True)
class FilterPruning:
    """A network with fewer filters, and what was taken from it."""

    model: nn.Module
    layers: dict[str, tuple[int, int]]
    """Name of a layer that lost filters -> how many it had and has."""
    parameters: tuple[int, int]
    """Of the whole model, before and after."""
    macs: tuple[int, int]
    """Multiplications for one input (not for a batch), before and after."""


def prune_filters(
    model: nn.Module,
    example_input: Any,
    *,
    ratio: float,
    ranking: str = "l1",
    scope: str = "layer",
    multiple_of: int = 8,
    ignored: Sequence[str] = (),
) -> FilterPruning:
    """Return a copy of a convolutional network without the filters that matter least.

    Whatever reads a removed filter's output loses its part too. Layers that are added to each
    other lose the same filters, and those that make the model's outputs lose none. The accuracy
    falls at once: train the result (with an optimizer of its own) for some epochs. Half of the
    filters is about a quarter of the multiplications.

    Args:
        model: A torch module, not prepared for quantization or magnitude pruning: do that
            afterwards. It stays as it is.
        example_input: What it is called with to trace it: a tensor, a tuple or a dict.
        ratio: Share of the filters that goes.
        ranking: "l1": those with the smallest weights; "geometric-median": those that are most
            like the others of their layer.
        scope: "layer": the same share of each layer; "global": the least of all layers, at most
            90 % of one.
        multiple_of: Keep numbers of filters that this divides: registers hold 8 or 16 values.
        ignored: Names of layers, as in `model.named_modules()`, that lose no filters.

    Raises:
        Error: torch or torch-pruning is missing, or the smaller model does not run.
        ValueError: A wrong option, an unknown layer, or nothing that could be removed.
    """
    from ovfast.training.ranking import RANKINGS, FilterScore

    check_ratio("ratio", ratio)
    if ranking not in RANKINGS:
        raise ValueError(f"ranking must be one of {', '.join(RANKINGS)}, got {ranking!r}")
    if scope not in ("layer", "global"):
        raise ValueError(f"scope must be layer or global, got {scope!r}")
    if multiple_of < 1:
        raise ValueError(f"multiple_of must be at least 1, got {multiple_of}")
    require("torch", "torch_pruning")
    import torch
    import torch_pruning

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    check_input(example_input)
    if any(name.startswith("__nncf_hooks") for name, _ in model.named_modules()):
        raise ValueError("the model is prepared by NNCF already; remove filters first")
    smaller = copy.deepcopy(model).eval()
    layers = dict(smaller.named_modules())
    if unknown := [name for name in ignored if name not in layers]:
        raise ValueError(f"the model has no layer {', '.join(unknown)}")
    before = _filters(smaller)
    with torch.no_grad():
        shapes = [tuple(value.shape) for value in flatten(call(smaller, example_input))]
    macs, parameters = torch_pruning.utils.count_ops_and_params(smaller, example_input)

    kept = [layers[name] for name in ignored]
    smaller.requires_grad_(True)  # the graph is found by way of the gradients
    try:
        kept += _output_layers(smaller, example_input)
        torch_pruning.pruner.BasePruner(
            smaller,
            example_input,
            FilterScore(RANKINGS[ranking]),
            pruning_ratio=ratio,
            global_pruning=scope == "global",
            max_pruning_ratio=0.9 if scope == "global" else 1.0,
            round_to=multiple_of,
            ignored_layers=kept,
            # Its defaults are dicts that all pruners would share.
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
        ).step()
        with torch.no_grad():
            after_shapes = [tuple(value.shape) for value in flatten(call(smaller, example_input))]
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise Error(
            f"filters of this model cannot be removed: {error}. Name the layers around the fault "
            "in ignored"
        ) from error
    if after_shapes != shapes:
        raise Error(
            f"outputs of shape {shapes} became {after_shapes}: name their layers in ignored"
        )
    after = _filters(smaller)
    lost = {name: (n, after[name]) for name, n in before.items() if after[name] != n}
    if not lost:
        raise ValueError(
            f"no layer can lose {ratio:.0%} of its filters and keep a multiple of {multiple_of}"
        )
    macs_after, parameters_after = torch_pruning.utils.count_ops_and_params(smaller, example_input)
    trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    for name, weight in smaller.named_parameters():
        weight.requires_grad_(trained[name])
    smaller.train(model.training)
    return FilterPruning(
        model=smaller,
        layers=lost,
        parameters=(int(parameters), int(parameters_after)),
        macs=(int(macs), int(macs_after)),
    )


def _filters(model: nn.Module) -> dict[str, int]:
    """Name of each convolution and linear layer -> its output channels."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    return {
        name: layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear)
    }


def _output_layers(model: nn.Module, example_input: Any) -> list[nn.Module]:
    """Find the layers whose filters are channels of the model's outputs."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, example_input)
    found: list[nn.Module] = []
    seen: set[int] = set()
    nodes = [node for node in graph.module2node.values() if not node.outputs]
    makers = _filters(model)
    prunable = {id(layer) for name, layer in model.named_modules() if name in makers}
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node.module) in prunable:
            found.append(node.module)
        else:
            nodes += node.inputs
    return found
