"""Language models on an emulated GPU: the same tokens as on the CPU, with and without our kernels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gpu_emulation import EmulatedGpu, emulated_gpu
from tiny_models import write_gguf

import ovfast
from ovfast import ops
from ovfast.reference.generate import ReferenceLLM

TOKENS = 64
# What the GPU plugin's f32 differs by from the CPU's, in logits of a standard deviation of about 1.
NOISE = 0.005


@pytest.fixture(scope="module")
def device() -> EmulatedGpu:
    return emulated_gpu()


@pytest.fixture(scope="module")
def model_dir(device: EmulatedGpu, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    write_gguf(folder / "model.gguf", "qwen2", GGMLQuantizationType.F16)
    ovfast.export(folder / "model.gguf", folder / "stock", progress=False, packed=False)
    return folder / "stock"


@pytest.fixture(scope="module")
def clear_case(model_dir: Path) -> tuple[list[int], list[int]]:
    """A prompt of 21 tokens and its 64 greedy ones, none of which is a close call."""
    reference = ReferenceLLM(model_dir)
    best: tuple[float, list[int], list[int]] = (0.0, [], [])
    for seed in range(40):
        prompt = np.random.default_rng(seed).integers(0, 400, 21).tolist()
        result = reference.generate(prompt, TOKENS, keep_logits=True)
        assert result.logits is not None
        two = np.sort(result.logits, axis=1)[:, -2:]
        best = max(best, (float((two[:, 1] - two[:, 0]).min()), prompt, result.token_ids))
    assert best[0] > 2 * NOISE
    return best[1], best[2]


Generate = Callable[..., dict[str, Any]]


def greedy(prompt: list[int], tokens: int = TOKENS, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "options": {"max_new_tokens": tokens, "ignore_eos": True, **more}}


def test_stock_graph_gives_the_cpus_tokens(
    device: EmulatedGpu, model_dir: Path, clear_case: tuple[list[int], list[int]]
) -> None:
    prompt, expected = clear_case
    # Beside it: another length, and one prompt with two answers.
    requests = [greedy(prompt), greedy(prompt[:20], 4), greedy(prompt, 6, n=2, temperature=1e-6)]
    options = {"device": "GPU", "activation_precision": "exact"}
    result = device.run("generate", str(model_dir), requests, options)
    assert result["answers"][0] == [expected]
    assert len(result["answers"][1][0]) == 4
    assert result["answers"][2] == [expected[:6]] * 2
    assert result["devices"] == ["GPU.0"]
    assert result["operations"] == 0


def test_our_kernels_give_the_cpus_tokens_and_are_built_for_few_shapes(
    device: EmulatedGpu, model_dir: Path, clear_case: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    prompt, expected = clear_case
    options = {"device": "GPU", "activation_precision": "exact", "gpu_operations": "ovfast"}
    result = device.run(
        "generate", str(model_dir), [greedy(prompt)], options, OVFAST_EMULATED_BUILDS=str(tmp_path)
    )
    assert result["answers"] == [[expected]]
    assert result["operations"] == 6  # two layers: two gated activations, four norms after a sum
    sources = [path.read_text() for path in tmp_path.glob("*.cl")]
    for entry, at_most in (("ovfast_swiglu", 4), ("ovfast_add_rms_norm", 8)):
        builds = sum(f"{entry}(" in source for source in sources)
        # A prompt of 21 goes in pieces of 16, 4 and 1; each token after it has one row, as the
        # last piece: three lengths, whatever is generated. The dynamic graph itself counts once,
        # and of the norms the last one of the graph has a shape of its own.
        assert 3 <= builds <= at_most


@pytest.mark.parametrize("name", ["AUTO", "HETERO:GPU,CPU", "MULTI:GPU,CPU"])
def test_devices_made_of_devices(
    device: EmulatedGpu, model_dir: Path, clear_case: tuple[list[int], list[int]], name: str
) -> None:
    prompt, expected = clear_case
    options = {"device": name, "activation_precision": "exact"}
    requests = [greedy(prompt), greedy(prompt, 6)]
    result = device.run("generate", str(model_dir), requests, options)
    assert result["answers"] == [[expected], [expected[:6]]]
    assert result["devices"] == (["GPU.0", "CPU"] if name.startswith("MULTI") else ["GPU.0"])


def test_refusals(device: EmulatedGpu, model_dir: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    ovfast.export(model_dir.parent / "model.gguf", packed, progress=False)
    message = device.run("refused", str(packed), {"device": "GPU"})
    assert "holds packed weights, which only the CPU runs" in message
    assert "--no-pack" in message
    message = device.run("refused", str(model_dir), {"device": "GPU.3"})
    assert "device is 'GPU.3', but OpenVINO finds no such device" in message


def test_damaged_kernels_are_named_before_the_plugin_sees_them(
    device: EmulatedGpu, model_dir: Path, tmp_path: Path
) -> None:
    """Another copy of the library that is found first, and the kernels beside it."""
    (tmp_path / "lib").mkdir()
    shutil.copy(ops.library_path(), tmp_path / "lib")
    shutil.copytree(ops.kernel_config().parent, tmp_path / "opencl")
    (tmp_path / "opencl" / "swiglu.cl").unlink()
    options = {"device": "GPU", "gpu_operations": "ovfast"}
    message = device.run("refused", str(model_dir), options, LD_LIBRARY_PATH=str(tmp_path / "lib"))
    assert message.startswith("ModelError: ovfast's kernels for GPUs are incomplete: ")
    assert str(tmp_path / "opencl" / "swiglu.cl") in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "NPU"}, "device is 'NPU', expected 'CPU', 'GPU'"),
        ({"device": "MULTI"}, "device is 'MULTI', expected"),
        ({"device": "GPU", "num_threads": 2}, "num_threads is 2, but the device is GPU"),
        ({"device": "GPU", "attention": "ovfast"}, "attention is 'ovfast', but the device is GPU"),
        ({"gpu_operations": "ovfast"}, "gpu_operations is 'ovfast', but the device is CPU"),
        ({"device": "GPU", "gpu_operations": "fast"}, "expected 'openvino' or 'ovfast'"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ovfast.LLM("unused", **options)
