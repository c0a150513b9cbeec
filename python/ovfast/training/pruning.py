"""Magnitude pruning: the smallest weights become zero while a model is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovfast.errors import Error
from ovfast.training.checks import (
    check_input,
    check_model,
    check_ratio,
    ignored_scope,
    load_torchao,
    require,
)

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PruningSchedule",
    "Sparsity",
    "adapt_batch_norm",
    "bake_pruning",
    "prepare_pruning",
    "sparsity",
]

_SCOPES = ("global", "layer")
_SHAPES = ("polynomial", "exponential")
_TOLERANCE = 0.01
"""How far below the asked the reached sparsity may lie: NNCF rounds to whole weights."""


@dataclass(frozen=True)
class Sparsity:
    """Which share of the masked weights is zero."""

    ratio: float
    """Zeros among all weights that have masks."""
    of_all: float
    """The same zeros among all parameters of the model."""
    tensors: dict[str, float]
    """Name of a parameter -> its own share of zeros."""


def prepare_pruning(
    model: nn.Module, example_input: Any, *, ignored: Sequence[str] = ()
) -> nn.Module:
    """Return a copy of a model whose convolutions, linear layers and embeddings have masks.

    Nothing is pruned yet; `PruningSchedule` does it in the course of a training.

    Args:
        model: A torch module, which stays as it is.
        example_input: What it is called with once to find its operations: a tensor, a tuple or a
            dict.
        ignored: Regular expressions; operations whose name in NNCF's graph matches stay dense.

    Raises:
        Error: torch or nncf is missing.
        ValueError: There is nothing to prune, or a pattern matches nothing.
    """
    require("torch", "nncf")
    check_model(model)
    check_input(example_input)
    import nncf
    import torch

    scope = ignored_scope(ignored)
    try:
        prepared: nn.Module = nncf.prune(
            copy.deepcopy(model),
            nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL,
            ratio=0.0,
            ignored_scope=scope,
            examples_inputs=example_input,
        )
    except (nncf.ValidationError, nncf.InternalError) as error:
        raise ValueError(f"nothing can be pruned: {error}") from error
    with torch.no_grad():
        # NNCF's ratio 0 prunes one weight of each tensor.
        for mask in _masks(prepared).values():
            mask.binary_mask.fill_(True)
    return prepared


class PruningSchedule:
    """Raises the share of pruned weights from `initial` to `target` in `steps` steps of a training.

    Call `step()` after each step of the optimizer. Train on for a while at the target.

    Args:
        model: What `prepare_pruning` returned, also when `prepare_qat` quantized it afterwards.
        target: Share of the masked weights that is zero in the end, between 0 and 1.
        steps: How many calls of `step()` it takes to get there.
        initial: Where it begins.
        shape: "polynomial": 1 - (1 - t)^power of the way at time t, fast first, as weights are
            easy to spare then (Zhu and Gupta, arXiv 1710.01878). "exponential": the share of the
            weights that stay falls by the same factor in each step.
        power: Of the polynomial.
        every: The masks are chosen anew in every so many steps, and in the last one: this sorts
            all weights.
        scope: "global": the smallest weights of the whole model, each layer divided by its norm;
            "layer": the same share of each layer.

    Raises ValueError for a wrong option or a model without masks.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        target: float,
        steps: int,
        initial: float = 0.0,
        shape: str = "polynomial",
        power: float = 3.0,
        every: int = 1,
        scope: str = "global",
    ) -> None:
        require("torch", "nncf")
        check_ratio("target", target)
        if not 0 <= initial < target:
            raise ValueError(f"initial must be at least 0 and below target, got {initial}")
        if steps < 1 or every < 1:
            raise ValueError(f"steps and every must be at least 1, got {steps} and {every}")
        if shape not in _SHAPES:
            raise ValueError(f"shape must be one of {', '.join(_SHAPES)}, got {shape!r}")
        if power <= 0:
            raise ValueError(f"power must be positive, got {power}")
        if scope not in _SCOPES:
            raise ValueError(f"scope must be one of {', '.join(_SCOPES)}, got {scope!r}")
        _masks(model)
        self._model = model
        self._target, self._steps, self._initial = target, steps, initial
        self._shape, self._power, self._every, self._scope = shape, power, every, scope
        self._step = 0

    @property
    def ratio(self) -> float:
        """Share of the masked weights that is to be zero now."""
        return self.ratio_at(self._step)

    def ratio_at(self, step: int) -> float:
        """Share of the masked weights that is to be zero after `step` steps."""
        time = min(step / self._steps, 1.0)
        if self._shape == "polynomial":
            way = 1 - (1 - time) ** self._power
            return float(self._initial + (self._target - self._initial) * way)
        left = (1 - self._target) / (1 - self._initial)
        return float(1 - (1 - self._initial) * left**time)

    def step(self) -> None:
        """Take a step and choose the masks anew where it is time to. At the target, do nothing."""
        from nncf import PruneMode
        from nncf.torch.function_hook.pruning.magnitude.algo import update_pruning_ratio

        if self._step >= self._steps:
            return
        self._step += 1
        if self._step % self._every and self._step != self._steps:
            return
        mode = "GLOBAL" if self._scope == "global" else "LOCAL"
        update_pruning_ratio(
            self._model, PruneMode[f"UNSTRUCTURED_MAGNITUDE_{mode}"], ratio=self.ratio
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint's `extra` needs to go on later."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the schedule was when `state` was taken."""
        self._step = int(state["step"])


def sparsity(model: nn.Module) -> Sparsity:
    """Count what the masks of a model leave out.

    Raises ValueError when it has no masks.
    """
    masks = {name.replace(":", "."): hook.binary_mask for name, hook in _masks(model).items()}
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    return Sparsity(
        ratio=zeros / sum(mask.numel() for mask in masks.values()),
        of_all=zeros / sum(weight.numel() for weight in model.parameters()),
        tensors={name: 1 - float(mask.float().mean()) for name, mask in sorted(masks.items())},
    )


def adapt_batch_norm(model: nn.Module, batches: Iterable[Any], *, progress: bool = True) -> None:
    """Let batch normalization see data again, after the weights before it have changed.

    Args:
        model: Any torch module. Its batch norms' running mean and variance are updated; everything
            else stays.
        batches: Inputs without labels, a few dozen: tensors, tuples or dicts.
        progress: Show NNCF's progress on stderr.

    Raises ValueError when the model has no batch normalization or there are no batches.
    """
    require("torch", "nncf")
    check_model(model)
    import nncf
    from torch.nn.modules.batchnorm import _BatchNorm

    from ovfast.quantize.nncf_output import nncf_output

    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ValueError("the model has no batch normalization to adapt")
    inputs = list(batches)
    if not inputs:
        raise ValueError("batch normalization cannot be adapted without any batch")
    for item in inputs:
        check_input(item)
    with nncf_output(progress):
        nncf.batch_norm_adaptation(model, nncf.Dataset(inputs))


def bake_pruning(model: nn.Module, *, expect: float | None = None) -> nn.Module:
    """Return a copy of a pruned model with the zeros in its weights and without masks.

    `export_model` does without: this is for going on in torch, for example with `prepare_qat`
    once the zeros may be trained again.

    Args:
        model: What `prepare_pruning` returned, not quantized.
        expect: Share of the masked weights that must be zero.

    Raises:
        Error: nncf or torchao is missing, or less than `expect` is zero: the schedule was not
            finished, say.
        ValueError: The model has no masks, or is quantized too.
    """
    require("torch", "nncf", "torchao")
    check_model(model)
    import nncf
    from nncf.torch.quantization.layers import BaseQuantizer

    if any(isinstance(module, BaseQuantizer) for module in model.modules()):
        raise ValueError("the model is quantized too; export_model takes it as it is")
    names = [name.replace(":", ".") for name in _masks(model)]
    load_torchao()
    baked: nn.Module = nncf.strip(model, strip_format=nncf.StripFormat.IN_PLACE)
    weights = dict(baked.named_parameters())
    zeros = sum(int((weights[name] == 0).sum()) for name in names)
    reached = zeros / sum(weights[name].numel() for name in names)
    check_reached(reached, expect)
    # What was frozen for the sake of the export is to be trained on.
    trained = dict(model.named_parameters())
    for name in names:
        weights[name].requires_grad_(trained[name].requires_grad)
    return baked


def check_reached(reached: float, expect: float | None) -> None:
    """Raise Error when less of the weights is zero than was asked for."""
    if expect is not None and reached < expect - _TOLERANCE:
        raise Error(
            f"expected {expect:.1%} of the weights to be zero, got {reached:.1%}: was the "
            "schedule stepped to its end?"
        )


def _masks(model: nn.Module) -> dict[str, Any]:
    """Name of a parameter, with colons for dots -> its mask."""
    from nncf.torch.function_hook.pruning.magnitude.algo import get_pruned_modules

    try:
        masks: dict[str, Any] = get_pruned_modules(model)
    except AttributeError:
        masks = {}  # NNCF never saw this model
    if not masks:
        raise ValueError("the model has no masks; prepare_pruning makes them")
    return masks
