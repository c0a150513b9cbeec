"""Training of int4 weights with low-rank adapters that disappear into them (for language models).

The method of NNCF's FQ_LORA: quantize(W + B A) with A, B and the ranges of the groups trained, W
frozen. What is exported is an ordinary int4 weight, with no adapters left to compute.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovfast.training.checks import check_input, check_model, ignored_scope, require

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["distillation_loss", "lora_parameter_groups", "prepare_lora_qat"]


def prepare_lora_qat(
    model: nn.Module,
    example_input: Any,
    *,
    group_size: int = 64,
    rank: int = 256,
    all_layers: bool = False,
    ignored: Sequence[str] = (),
    progress: bool = True,
) -> nn.Module:
    """Return a model whose weights are computed as int4 and tuned by low-rank adapters.

    Linear layers get 4 bits (asymmetric, in groups) and adapters, which start close to zero.
    Embeddings and the last layer get 8 bits per channel and are not trained. Train it with `lora_parameter_groups` and `distillation_loss`, the original
    as teacher; activations are not quantized.

    Args:
        model: A torch module, such as a causal language model of transformers. It stays as it is
            and can be the teacher. Its weights are shared with what is returned, so that the two
            need little more memory than one; do not train it meanwhile.
        example_input: What it is called with once to find its operations: a tensor, a tuple or a
            dict, for transformers with input_ids and attention_mask.
        group_size: Weights along a row that share scale and zero point. Must divide all rows.
        rank: Of the adapters, at most the smallest dimension of a weight. 256 suits models from
            1 B parameters on, smaller ones do with less.
        all_layers: 4 bits for embeddings and the last layer too.
        ignored: Regular expressions; operations whose name in NNCF's graph matches are left alone.
        progress: Show NNCF's table and progress on stderr.

    Raises:
        Error: torch, nncf or torchao is missing.
        ValueError: A wrong option, or a group size or rank that does not fit the weights.
    """
    if group_size < 1 or rank < 1:
        raise ValueError(f"group_size and rank must be positive, got {group_size} and {rank}")
    require("torch", "nncf", "torchao")
    check_model(model)
    check_input(example_input)
    import nncf

    from ovfast.quantize.nncf_output import nncf_output
    from ovfast.training.fake_quantize import use_torch_operations

    use_torch_operations()
    shared: dict[int, Any] = {id(weight): weight for weight in model.parameters()}
    student = copy.deepcopy(model, shared)
    scope = ignored_scope(ignored)
    try:
        with nncf_output(progress):
            prepared: nn.Module = nncf.compress_weights(
                student,
                mode=nncf.CompressWeightsMode.INT4_ASYM,
                group_size=group_size,
                all_layers=all_layers,
                ignored_scope=scope,
                compression_format=nncf.CompressionFormat.FQ_LORA,
                dataset=nncf.Dataset([example_input]),
                advanced_parameters=nncf.AdvancedCompressionParameters(lora_adapter_rank=rank),
            )
    except (nncf.InvalidGroupSizeError, nncf.ValidationError) as error:
        raise ValueError(str(error)) from error
    return prepared.train(model.training)


def lora_parameter_groups(model: nn.Module, lr: float = 1e-4) -> list[dict[str, Any]]:
    """Freeze everything but adapters and ranges, and return these as groups for an optimizer.

    Args:
        model: What `prepare_lora_qat` returned.
        lr: Learning rate of the adapters. The ranges of the groups get a tenth of it.

    Raises ValueError when the model has no adapters.
    """
    require("torch", "nncf")
    from nncf.torch.quantization.layers import AsymmetricLoraQuantizer

    quantizers = [hook for hook in model.modules() if isinstance(hook, AsymmetricLoraQuantizer)]
    if not quantizers:
        raise ValueError("the model has no adapters; prepare_lora_qat makes them")
    model.requires_grad_(False)
    adapters, ranges = [], []
    for quantizer in quantizers:
        quantizer.enable_gradients()
        names = quantizer.get_adapters()
        adapters += list(names.values())
        ranges += [v for name, v in quantizer.get_trainable_params().items() if name not in names]
    return [{"params": adapters, "lr": lr}, {"params": ranges, "lr": lr / 10}]


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of a student from its teacher, in nats per position.

    Args:
        student: Logits [..., classes].
        teacher: Logits of the same shape, which get no gradient.

    Returns a scalar: KL(teacher || student), the mean over all positions.

    Raises ValueError when the shapes differ.
    """
    from torch.nn import functional

    if student.shape != teacher.shape:
        raise ValueError(
            f"logits of different shapes: student {list(student.shape)}, "
            f"teacher {list(teacher.shape)}"
        )
    classes = student.shape[-1]
    return functional.kl_div(
        functional.log_softmax(student.reshape(-1, classes).float(), dim=-1),
        functional.log_softmax(teacher.detach().reshape(-1, classes).float(), dim=-1),
        log_target=True,
        reduction="batchmean",
    )
