"""The plain Python path: its logits against transformers and torch, its loop against itself."""

from __future__ import annotations

import shutil

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tiny_models import ARCHITECTURES, Shape

from ovfast.errors import ModelError
from ovfast.reference import ReferenceLLM

# Longer than a KV block, and than most tails of vectorized loops.
IDS = np.random.default_rng(1).integers(3, 400, 70).tolist()


@pytest.fixture(scope="module")
def llm(tiny_model_dirs):
    return ReferenceLLM(tiny_model_dirs["qwen2"])


def torch_logits(gguf):
    torch = pytest.importorskip("torch", reason="pip install 'ovfast[torch]'")
    from transformers import AutoConfig, AutoModelForCausalLM

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    config = AutoConfig.from_pretrained(**where)
    # What transformers does not take from the file, but from its defaults for the real models.
    config.pad_token_id = None
    config.head_dim = config.query_pre_attn_scalar = Shape().head_size
    model = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.float32)
    with torch.inference_mode():
        return model.eval()(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("tensor_type", "tolerance"),
    [("F16", 1e-4), ("Q8_0", 1e-4), ("Q4_0", 1e-4)],
)
def test_logits_are_those_of_torch(tiny_model, architecture, tensor_type, tolerance):
    gguf, model_dir = tiny_model(architecture, tensor_type)
    expected = torch_logits(gguf)
    got = ReferenceLLM(model_dir).logits(IDS)
    print(architecture, tensor_type, np.abs(got-expected).max(), expected.std(), (got.argmax(-1)==expected.argmax(-1)).mean())
    assert got.shape == expected.shape
    assert got.dtype == np.float32
