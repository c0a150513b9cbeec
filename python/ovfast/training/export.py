"""From a trained torch module to a model directory."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast.errors import Error
from ovfast.export.manifest import step, write_manifest
from ovfast.export.target import written_directory
from ovfast.training.checks import call, check_input, load_torchao, require
from ovfast.training.outputs import flatten

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["TrainingExport", "export_model"]

_LIMIT = 0.1
"""Largest difference between torch and OpenVINO, relative to the largest output. A value that lies
between two steps of a quantizer may go either way, and the difference adds up over the layers."""


@dataclass(frozen=True)
class TrainingExport:
    """What `export_model` wrote."""

    model_dir: Path
    form: str
    """"float", "int8" (weights and activations) or "int4" (weights, some of 8 bits)."""
    difference: float
    """Largest difference of an output from torch's on the example, relative to the largest one."""
    sparsity: float | None
    """Share of zeros among the weights that had masks; None without masks."""
    weights_bytes: int
    """Size of openvino_model.bin."""


def export_model(
    model: nn.Module,
    example_input: Any,
    out_dir: str | Path,
    *,
    shapes: Sequence[Sequence[int]] | None = None,
    expect_sparsity: float | None = None,
    compress_to_f16: bool = True,
    force: bool = False,
) -> TrainingExport:
    """Write a module, prepared by this package or plain, as an OpenVINO model directory.

    Quantizers become FakeQuantize operations on activations and integer weights, low-rank adapters
    and masks go into the weights. Then OpenVINO computes the example in f32 and is compared with
    torch. The directory appears whole or not at all.

    Args:
        model: A module in any state of training; it stays as it is. Exported in eval mode.
        example_input: A tensor, a tuple of positional or a dict of named inputs.
        out_dir: The directory for openvino_model.xml, openvino_model.bin and ovfast.json. It must
            not exist or be empty.
        shapes: One shape an input, in the order of the example, -1 where a dimension is free. Default: those
            of the example. Leave channels fixed: quantized convolutions need them.
        expect_sparsity: Share of the masked weights that must be zero.
        compress_to_f16: Store weights that are left in f32 as f16.
        force: Replace a model that `out_dir` holds.

    Raises:
        Error: A package is missing, the model cannot be converted or computes something else in
            OpenVINO, less than `expect_sparsity` is zero, or nothing can be written.
        ValueError: `out_dir` holds something else, or a wrong option.
    """
    require("torch", "nncf", "torchao")
    import torch

    from ovfast.training.pruning import check_reached, sparsity

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    check_input(example_input)
    inputs = _inputs(example_input)
    if shapes is None:
        shapes = [list(value.shape) for value in inputs.values()]
    elif len(shapes) != len(inputs):
        raise ValueError(f"expected {len(inputs)} shapes, one an input, got {len(shapes)}")
    hooks = _Hooks.of(model)
    reached = sparsity(model).ratio if hooks.masks else None
    if expect_sparsity is not None:
        if reached is None:
            raise ValueError("expect_sparsity is for models with masks; this one has none")
        check_reached(reached, expect_sparsity)

    out_dir = Path(out_dir).expanduser()
    with written_directory(out_dir, force=force) as place:
        assert place is not None
        plain = copy.deepcopy(model).eval()
        with torch.no_grad():
            expected = [value.cpu().numpy() for value in flatten(call(plain, example_input))]
        plain = _strip(plain, example_input, hooks)
        converted = _convert(plain, example_input, dict(zip(inputs, shapes, strict=True)))
        import openvino

        openvino.save_model(
            converted, place / "openvino_model.xml", compress_to_fp16=compress_to_f16
        )
        difference = _compare(expected, example_input, place)
        write_manifest(
            place,
            source={"kind": "torch", "class": type(model).__qualname__},
            steps=[
                step(
                    "training",
                    ("torch", "nncf", "openvino"),
                    form=hooks.form,
                    sparsity=reached,
                    difference=difference,
                )
            ],
        )
        size = (place / "openvino_model.bin").stat().st_size
    return TrainingExport(
        model_dir=out_dir,
        form=hooks.form,
        difference=difference,
        sparsity=reached,
        weights_bytes=size,
    )


@dataclass(frozen=True)
class _Hooks:
    """What NNCF put into a model."""

    quantizers: bool = False
    weights_only: bool = False
    masks: bool = False

    @property
    def form(self) -> str:
        if not self.quantizers:
            return "float"
        return "int4" if self.weights_only else "int8"

    @classmethod
    def of(cls, model: nn.Module) -> _Hooks:
        from nncf.torch.function_hook.pruning.magnitude.modules import UnstructuredPruningMask
        from nncf.torch.quantization.layers import AsymmetricLoraQuantizer, BaseQuantizer

        modules = list(model.modules())
        return cls(
            quantizers=any(isinstance(hook, BaseQuantizer) for hook in modules),
            weights_only=any(isinstance(hook, AsymmetricLoraQuantizer) for hook in modules),
            masks=any(isinstance(hook, UnstructuredPruningMask) for hook in modules),
        )


def _strip(model: nn.Module, example_input: Any, hooks: _Hooks) -> nn.Module:
    """Put operations that OpenVINO knows in the place of NNCF's."""
    import nncf

    load_torchao()
    if hooks.weights_only:
        form = nncf.StripFormat.DQ
    elif hooks.quantizers:
        form = nncf.StripFormat.NATIVE  # masks that are left become constants in the conversion
    elif hooks.masks:
        form = nncf.StripFormat.IN_PLACE
    else:
        return model
    stripped: nn.Module = nncf.strip(
        model, do_copy=False, strip_format=form, example_input=example_input
    )
    return stripped


def _inputs(example_input: Any) -> dict[int | str, Any]:
    """Return the tensors of an example by name, or by position where they have no names."""
    if isinstance(example_input, dict):
        return dict(example_input)
    return dict(enumerate(example_input if isinstance(example_input, tuple) else [example_input]))


def _convert(model: nn.Module, example_input: Any, shapes: dict[int | str, Sequence[int]]) -> Any:
    import openvino
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        # Shapes of quantizers turn into constants, as they should.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        try:
            converted = openvino.convert_model(model, example_input=example_input)
        except Exception as error:  # of many kinds, by the frontend and by torch's tracer
            reason = " ".join(str(error).split()[:60])
            raise Error(f"OpenVINO cannot convert this model: {reason}") from error
    if len(converted.inputs) != len(shapes):
        raise Error(
            f"the model has {len(converted.inputs)} inputs in OpenVINO, the example has "
            f"{len(shapes)}: it does not use all of them"
        )
    try:
        # By name where there are names: the order is that of forward(), not of the dict.
        converted.reshape({k: openvino.PartialShape(list(v)) for k, v in shapes.items()})
    except RuntimeError as error:
        raise Error(f"the model cannot have the shapes {list(shapes.values())}: {error}") from error
    return converted


def _compare(expected: list[np.ndarray[Any, Any]], example_input: Any, directory: Path) -> float:
    """Compute the example with the written model; return the largest difference from torch's."""
    import numpy as np
    import openvino

    compiled = openvino.Core().compile_model(
        directory / "openvino_model.xml",
        "CPU",
        # Otherwise the plugin quantizes the activations of layers with int4 weights.
        {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"},
    )
    inputs = {key: value.cpu().numpy() for key, value in _inputs(example_input).items()}
    results = compiled(inputs)
    got = [np.asarray(results[port]) for port in compiled.outputs]
    if [a.shape for a in got] != [b.shape for b in expected]:
        raise Error(
            f"outputs of shape {[b.shape for b in expected]} in torch became "
            f"{[a.shape for a in got]} in OpenVINO"
        )
    difference = max((_relative(a, b) for a, b in zip(got, expected, strict=True)), default=0.0)
    if not difference <= _LIMIT:
        raise Error(
            f"OpenVINO's outputs differ from torch's by {difference:.3g} of the largest value, "
            f"more than {_LIMIT}: the example does not cover what the model does, or an operation "
            "was converted wrongly"
        )
    return difference


def _relative(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    import numpy as np

    got, expected = got.astype(np.float64), expected.astype(np.float64)
    if not got.size:
        return 0.0
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-12))
