"""Small Hugging Face folders with random decoders, written without torch."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny_tokenizers import reference
from transformers import PreTrainedTokenizerFast

TOKENIZER = 462  # tokens that the tokenizer knows
VOCABULARY = 480  # rows of the matrices: a few more, as in real models
CONTEXT = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_SHORT = [1.0 + 0.1 * i for i in range(12)]
_LONG = [2.0 + 0.3 * i for i in range(12)]

FOLDERS: dict[str, dict[str, Any]] = {
    # Old and new spellings of rope, biases and untied outputs are spread over these.
    "llama": {
        "model_type": "llama",
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "original_max_position_embeddings": 64,
            **_LLAMA3,
        },
    },
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-yarn": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0},
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 64},
    "mistral": {"model_type": "mistral", "head_dim": 64, "sliding_window": 8},
    "gemma": {"model_type": "gemma", "head_dim": 64, "hidden_act": "gelu"},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 64,
        "sliding_window": 8,
        "query_pre_attn_scalar": 48,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": 2.0,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 64,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "phi3": {"model_type": "phi3", "sliding_window": 8},
    "phi3-longrope": {
        "model_type": "phi3",
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 64,
        "rope_scaling": {"type": "longrope", "short_factor": _SHORT, "long_factor": _LONG},
    },
}
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "phi3")


def config(name: str, **changes: Any) -> dict[str, Any]:
    content = {**_COMMON, **FOLDERS[name], **changes}
    content["architectures"] = [f"{content['model_type'].title()}ForCausalLM"]
    return content


def tensors(content: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random f16 tensors of a config, with the names that transformers gives them."""
    random = np.random.default_rng(seed)
    family = content["model_type"]
    hidden, inner = content["hidden_size"], content["intermediate_size"]
    size = content.get("head_dim", hidden // content["num_attention_heads"])
    queries = content["num_attention_heads"] * size
    keys = content["num_key_value_heads"] * size
    made: dict[str, np.ndarray] = {}

    def linear(name: str, rows: int, columns: int, bias: bool = False) -> None:
        spread = 1.5 / columns**0.5
        made[f"{name}.weight"] = random.normal(0, spread, (rows, columns)).astype(np.float16)
        if bias:
            made[f"{name}.bias"] = random.normal(0, 0.3, rows).astype(np.float16)

    def norm(name: str, length: int) -> None:
        middle = 0.0 if family.startswith("gemma") else 1.0
        made[f"{name}.weight"] = random.normal(middle, 0.2, length).astype(np.float16)

    made["model.embed_tokens.weight"] = random.normal(0, 1, (content["vocab_size"], hidden)).astype(
        np.float16
    )
    biased = content.get("attention_bias", False)
    mlp_bias = content.get("mlp_bias", False)
    for layer in range(content["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        norm(f"{at}.input_layernorm", hidden)
        norm(f"{at}.post_attention_layernorm", hidden)
        if family in ("gemma2", "gemma3_text"):
            norm(f"{at}.pre_feedforward_layernorm", hidden)
            norm(f"{at}.post_feedforward_layernorm", hidden)
        if family in ("qwen3", "gemma3_text"):
            norm(f"{at}.self_attn.q_norm", size)
            norm(f"{at}.self_attn.k_norm", size)
        if family == "phi3":
            linear(f"{at}.self_attn.qkv_proj", queries + 2 * keys, hidden)
            linear(f"{at}.mlp.gate_up_proj", 2 * inner, hidden)
        else:
            for part, rows in (("q", queries), ("k", keys), ("v", keys)):
                linear(f"{at}.self_attn.{part}_proj", rows, hidden, biased or family == "qwen2")
            linear(f"{at}.mlp.gate_proj", inner, hidden, mlp_bias)
            linear(f"{at}.mlp.up_proj", inner, hidden, mlp_bias)
        linear(f"{at}.self_attn.o_proj", hidden, queries, biased)
        linear(f"{at}.mlp.down_proj", hidden, inner, mlp_bias)
    norm("model.norm", hidden)
    if not content.get("tie_word_embeddings", family.startswith("gemma")):
        linear("lm_head", content["vocab_size"], hidden)
    return made


def write_folder(folder: Path, name: str, seed: int = 0, **changes: Any) -> Path:
    """Write a whole folder: config.json, model.safetensors and a tokenizer."""
    content = config(name, **changes)
    write_parts(folder, content, tensors(content, seed))
    return folder


def write_parts(folder: Path, content: dict[str, Any], made: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    for file, data in _tokenizer().items():
        (folder / file).write_bytes(data)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of f32, as uint16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(file: Path, made: dict[str, np.ndarray], dtype: str) -> None:
    """The format by hand, for dtypes that NumPy lacks."""
    header, at = {}, 0
    for name, values in made.items():
        end = at + values.nbytes
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for values in made.values():
            stream.write(values.tobytes())


@functools.cache
def _tokenizer() -> dict[str, bytes]:
    """Files by name."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=reference("byte_level"),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )
    assert len(wrapped) == TOKENIZER
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}
