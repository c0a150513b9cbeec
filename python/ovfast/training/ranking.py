"""How much a filter matters: two scores of the filters of a layer, and of layers that hang together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["RANKINGS", "FilterScore"]


def _l1_norms(filters: torch.Tensor) -> torch.Tensor:
    """Sum of the magnitudes of each filter (Li et al., arXiv 1608.08710).

    Args:
        filters: Weights [filters, values of a filter].

    Returns [filters].
    """
    return filters.abs().sum(1)


def _distances(filters: torch.Tensor) -> torch.Tensor:
    """Sum of each filter's Euclidean distances to all others (He et al., arXiv 1811.00250).

    The filter with the smallest sum is nearest to the geometric median: the others can best
    replace it. Takes and returns what `_l1_norms` does.
    """
    import torch

    # The faster way through a matrix product loses what nearly equal filters differ by.
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


RANKINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "l1": _l1_norms,
    "geometric-median": _distances,
}


class FilterScore:
    """Scores the filters of a group of layers which can only lose the same ones (torch-pruning).

    Layers that are added to each other share their filters: each layer's scores are divided by
    their mean and then summed up, so that none outvotes the others, and groups can be compared.
    """

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._score = score

    def __call__(self, group: Any) -> torch.Tensor | None:
        """Return [filters of the group], or None when no layer in it makes them."""
        import torch
        from torch_pruning.pruner import function

        total: torch.Tensor | None = None
        layers = 0
        for position, (dependency, indices) in enumerate(group):
            if dependency.handler not in (
                function.prune_conv_out_channels,
                function.prune_linear_out_channels,
            ):
                continue
            layer = dependency.target.module
            weight = layer.weight.detach()
            if getattr(layer, "transposed", False):
                weight = weight.transpose(0, 1)
            roots = torch.as_tensor(group[position].root_idxs, device=weight.device)
            scores = self._score(weight[indices].flatten(1).float())
            if total is None:
                total = scores.new_zeros(len(group[0].idxs))
            # A filter may appear in several places, as behind a concatenation.
            total.scatter_add_(0, roots, scores / scores.mean().clamp_min(1e-12))
            layers += 1
        return None if total is None else total / layers
