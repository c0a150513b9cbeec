"""config.json and generation_config.json out of a GGUF file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast.errors import ModelError

if TYPE_CHECKING:
    from ovfast._core import GgufHeader

__all__ = ["adds_bos", "generation_config", "model_config", "token", "write_config"]

# GGUF architecture -> Hugging Face's model_type and class, where they are not the same or known.
_MODEL_TYPES = {
    "exaone-moe": "exaone_moe",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "glm4moe": "glm4_moe",
    "gpt-oss": "gpt_oss",
    "minimax-m2": "minimax_m2",
    "qwen3moe": "qwen3_moe",
}
_CLASSES = {
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "gpt-oss": "GptOssForCausalLM",
    "llama": "LlamaForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}

# config.json's key -> GGUF's, behind the architecture's name.
_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}

# Tokens by which chat models end a turn or a text. Files name one of them only, although their
# authors' own generation_config.json lists more.
_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|endofturn|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
)
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type

# Vocabularies whose text begins with BOS unless the file says otherwise, as in llama.cpp.
_BOS_PRE_TOKENIZERS = {
    "falcon3",
    "falcon-h1",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "pixtral",
    "tekken",
}


def write_config(header: GgufHeader, metadata: dict[str, Any], name: str, out_dir: Path) -> None:
    """Write both files for the GGUF file called `name`.

    `metadata` is the header's, arrays included. Raises ModelError when a token id is outside the
    vocabulary.
    """
    for file, content in (
        ("config.json", model_config(header, metadata, name)),
        ("generation_config.json", generation_config(metadata, name)),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (out_dir / file).write_text(text, encoding="utf-8")


def model_config(header: GgufHeader, metadata: dict[str, Any], name: str) -> dict[str, Any]:
    """Say in Hugging Face's words what the model is."""
    architecture = header.architecture
    config: dict[str, Any] = {}
    if architecture in _CLASSES:
        config["architectures"] = [_CLASSES[architecture]]
    config["model_type"] = _MODEL_TYPES.get(architecture, architecture)
    for key, gguf_key in _KEYS.items():
        value = metadata.get(f"{architecture}.{gguf_key}")
        if isinstance(value, float):
            value = float(f"{value:.7g}")  # what a float32 was written as
        if value is not None:
            config[key] = value
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    tokens = metadata.get("tokenizer.ggml.tokens") or []
    # The embedding may be padded beyond the tokens; logits have its length.
    config["vocab_size"] = shapes.get("token_embd.weight", [0, len(tokens)])[1]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config.update(_special_ids(metadata, name))
    return config


def generation_config(metadata: dict[str, Any], name: str) -> dict[str, Any]:
    """Say how to generate by default: which tokens begin and end a text."""
    config = _special_ids(metadata, name)
    ends = _end_ids(metadata, name)
    if ends:
        config["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    return config


def token(metadata: dict[str, Any], key: str, name: str) -> str | None:
    """Look up the token that `tokenizer.ggml.<key>` names; None when the file names none."""
    index = metadata.get(f"tokenizer.ggml.{key}")
    if index is None:
        return None
    tokens = metadata.get("tokenizer.ggml.tokens") or []
    if not 0 <= index < len(tokens):
        raise ModelError(
            f"'{name}': metadata 'tokenizer.ggml.{key}' is {index}, but the vocabulary has "
            f"{len(tokens)} tokens"
        )
    return str(tokens[index])


def adds_bos(metadata: dict[str, Any]) -> bool:
    """Whether a plain text begins with the BOS token."""
    if token(metadata, "bos_token_id", "") is None:
        return False
    flag = metadata.get("tokenizer.ggml.add_bos_token")
    if metadata.get("tokenizer.ggml.model") == "gemma4":
        return False  # the flag is set, but the chat template writes <bos> itself
    if flag is not None:
        return bool(flag)
    return (
        metadata.get("tokenizer.ggml.model") == "llama"
        or metadata.get("tokenizer.ggml.pre") in _BOS_PRE_TOKENIZERS
    )


def _special_ids(metadata: dict[str, Any], name: str) -> dict[str, Any]:
    ids = {}
    for key, gguf_key in (
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("pad_token_id", "padding_token_id"),
    ):
        if token(metadata, gguf_key, name) is not None:
            ids[key] = metadata[f"tokenizer.ggml.{gguf_key}"]
    return ids


def _end_ids(metadata: dict[str, Any], name: str) -> list[int]:
    ends = [
        metadata[f"tokenizer.ggml.{key}"]
        for key in _END_KEYS
        if token(metadata, key, name) is not None
    ]
    types = metadata.get("tokenizer.ggml.token_type") or []
    tokens = metadata.get("tokenizer.ggml.tokens") or []
    for index, (text, kind) in enumerate(zip(tokens, types, strict=False)):
        if kind in (_CONTROL, _USER_DEFINED) and text in _ENDS:
            ends.append(index)
    return list(dict.fromkeys(ends))
