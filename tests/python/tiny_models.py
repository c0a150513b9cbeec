"""Small GGUF models with random weights, of the architectures and tensor types that matter.

They say nothing sensible, but they are whole: hyperparameters, tensors, a tokenizer and a chat
template, written with the `gguf` package as llama.cpp's own converter does.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "phi3")

CONTEXT = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_CORPUS = [
    "The quick brown fox jumps over the lazy dog. It isn't lazy, is it?",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    "你好，世界！今天天气怎么样？ Привет, мир! El niño comió piñas. 日本語 😀 👍🏽",
] * 4
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # values of tokenizer.ggml.token_type


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. Rows must be whole blocks of the tensor type."""

    layers: int = 2
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    feed_forward: int = 256
    context: int = CONTEXT
    window: int = CONTEXT  # of sliding attention, in gemma3 and phi3
    more_tokens: int = 0  # in the vocabulary, of no use but to make it large


def write_gguf(
    path: Path,
    architecture: str = "qwen2",
    tensor_type: Type = Type.Q8_0,
    *,
    shape: Shape | None = None,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
    rounded_to: Type | None = None,
) -> Path:
    """Write a model and return `path`. Norms and biases are F32, as everywhere.

    `rounded_to` gives the weights the values that they would have in that type.
    """
    shape = shape or Shape()
    writer = gguf.GGUFWriter(path, architecture)
    spelled = "llama" if architecture in ("llama", "gemma3", "phi3") else "gpt2"
    add_tokenizer = _add_sentencepiece if spelled == "llama" else _add_byte_level
    size = add_tokenizer(writer, [f"unused{i}" for i in range(shape.more_tokens)])
    _add_hyperparameters(writer, architecture, shape, size)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    generator = np.random.default_rng(seed)
    for name, dimensions in _tensors(architecture, shape, size).items():
        if len(dimensions) == 1:
            low, high = (0.8, 1.2) if name.endswith("norm.weight") else (-0.1, 0.1)
            writer.add_tensor(name, generator.uniform(low, high, dimensions).astype(np.float32))
            continue
        weights = generator.normal(0, dimensions[1] ** -0.5, dimensions).astype(np.float32)
        if rounded_to is not None:
            weights = gguf.quants.dequantize(gguf.quants.quantize(weights, rounded_to), rounded_to)
        stored = gguf.quants.quantize(weights, tensor_type)
        writer.add_tensor(name, stored, raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(architecture: str, shape: Shape, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape as NumPy has it: rows first."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, shape.hidden),
        "output_norm.weight": (shape.hidden,),
    }
    if architecture != "gemma3":  # which ties them
        tensors["output.weight"] = (vocabulary, shape.hidden)
    for layer in range(shape.layers):
        parts: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (shape.hidden,),
            "ffn_norm.weight": (shape.hidden,),
            "attn_output.weight": (shape.hidden, queries),
            "ffn_down.weight": (shape.hidden, shape.feed_forward),
        }
        if architecture == "phi3":
            parts["attn_qkv.weight"] = (queries + 2 * keys, shape.hidden)
            parts["ffn_up.weight"] = (2 * shape.feed_forward, shape.hidden)
        else:
            for name, rows in (("attn_q", queries), ("attn_k", keys), ("attn_v", keys)):
                parts[f"{name}.weight"] = (rows, shape.hidden)
                if architecture == "qwen2":
                    parts[f"{name}.bias"] = (rows,)
            parts["ffn_gate.weight"] = (shape.feed_forward, shape.hidden)
            parts["ffn_up.weight"] = (shape.feed_forward, shape.hidden)
        if architecture in ("qwen3", "gemma3"):
            parts["attn_q_norm.weight"] = (shape.head_size,)
            parts["attn_k_norm.weight"] = (shape.head_size,)
        if architecture == "gemma3":
            parts["post_attention_norm.weight"] = (shape.hidden,)
            parts["post_ffw_norm.weight"] = (shape.hidden,)
        tensors.update({f"blk.{layer}.{name}": size for name, size in parts.items()})
    return tensors


def _add_hyperparameters(
    writer: gguf.GGUFWriter, architecture: str, shape: Shape, vocabulary: int
) -> None:
    writer.add_name(f"tiny {architecture}")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_vocab_size(vocabulary)
    if architecture in ("gemma3", "phi3"):
        writer.add_sliding_window(shape.window)


@functools.cache
def _byte_level() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE, split as Qwen2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), merges


def _add_byte_level(writer: gguf.GGUFWriter, more: list[str]) -> int:
    tokens, merges = _byte_level()
    tokens = [*tokens, *more]
    everything = [*tokens, *CONTROL_TOKENS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(everything)
    writer.add_token_types([_NORMAL] * len(tokens) + [_CONTROL] * len(CONTROL_TOKENS))
    writer.add_token_merges(merges)
    writer.add_eos_token_id(everything.index("<|im_end|>"))
    writer.add_bos_token_id(everything.index("<|endoftext|>"))
    writer.add_pad_token_id(everything.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    return len(everything)


@functools.cache
def _sentencepiece() -> list[str]:
    """Pieces of a SentencePiece-like BPE, best first, with spaces as U+2581."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)[1:]
    return [piece for piece in pieces if len(piece) > 1] + [p for p in pieces if len(p) == 1]


def _add_sentencepiece(writer: gguf.GGUFWriter, more: list[str]) -> int:
    pieces = [*_sentencepiece(), *more]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(pieces)]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces))]
    for token in CONTROL_TOKENS[1:]:
        tokens.append(token)
        types.append(_CONTROL)
        scores.append(0.0)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    return len(tokens)
