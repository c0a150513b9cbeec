"""What the GPU tests run where OpenVINO finds an emulated GPU; see gpu_emulation.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset
from openvino.utils.node_factory import NodeFactory

import ovfast
from ovfast import gpu, kernels, ops
from ovfast.errors import Error


def check_with(config: str, name: str) -> dict[str, Any]:
    """Check one of ovfast's operations with the kernels of another XML file."""
    core = ov.Core()
    core.add_extension(str(ops.library_path()))
    layers = {layer.operation: layer for layer in kernels.read_kernels(config)}
    core.set_property("GPU", {"CONFIG_FILE": config})
    operation = next(one for one in gpu.OPERATIONS if one.name == name)
    return asdict(gpu.check_operation(core, operation, layers[name], ops.library_path()))


def check_folder(folder: str) -> dict[str, Any]:
    """Check an operation of `ovfast ops new`."""
    from ovfast.scaffold import check_folder as check_scaffold

    return asdict(check_scaffold(Path(folder), "GPU"))


def split_inputs() -> float:
    """SwiGLU of the halves of one tensor, which the plugin hands out in place; the largest error."""
    factory = NodeFactory()
    factory.add_extension(str(ops.library_path()))
    core = ov.Core()
    ops.register(core)
    random = np.random.default_rng(2)
    worst = 0.0
    for dynamic in (False, True):
        x = opset.parameter([-1, -1, 34] if dynamic else [2, 3, 34], np.float32)
        halves = opset.split(x, opset.constant(np.int64(2)), 2)
        node = factory.create("SwiGLU", [halves.output(0), halves.output(1)], {"alpha": 1.0})
        compiled = core.compile_model(
            ov.Model([opset.relu(node).output(0)], [x]), "GPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        value = random.standard_normal((2, 3, 34), np.float32)
        gate, up = value[..., :17], value[..., 17:]
        expected = np.maximum(gate / (1 + np.exp(-gate)) * up, 0)
        worst = max(worst, float(np.abs(compiled([value])[0] - expected).max()))
    return worst


def generate(
    model_dir: str, requests: list[dict[str, Any]], options: dict[str, Any]
) -> dict[str, Any]:
    """Greedy tokens of requests run at once, and what the engine says of itself."""
    with ovfast.LLM(model_dir, progress=False, **options) as llm:
        from ovfast.llm import _wait

        submitted = [llm._submit(one["prompt"], one["options"]) for one in requests]
        results = [_wait(request) for request in submitted]
        return {
            "answers": [[list(answer.token_ids) for answer in one.answers] for one in results],
            "devices": llm.info.execution_devices,
            "operations": llm.info.gpu_operations,
            "reason": llm.info.kv_cache_reason,
        }


def refused(model_dir: str, options: dict[str, Any]) -> str:
    """The error of an LLM that cannot be."""
    try:
        ovfast.LLM(model_dir, progress=False, **options)
    except (ValueError, Error) as error:
        return f"{type(error).__name__}: {error}"
    return ""


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (check_with, check_folder, split_inputs, generate, refused)
}

if __name__ == "__main__":
    print(json.dumps(_FUNCTIONS[sys.argv[1]](*json.load(sys.stdin))))
