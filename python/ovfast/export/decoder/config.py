"""What a decoder is made of, out of the config.json of a Hugging Face folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovfast.errors import ModelError
from ovfast.export.decoder import FAMILIES
from ovfast.export.decoder.rope import Rope, read_rope
from ovfast.export.stderr import HeldStderr

__all__ = ["DecoderConfig", "read_config", "read_raw_config"]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# What transformers says that is no news here: no torch is needed, longrope is handled.
_NOTICES = (
    b"[transformers] PyTorch was not found",
    b"[transformers] This model config has set a `rope_parameters['original_max_position",
)
_GEMMAS = ("gemma", "gemma2", "gemma3_text")


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder of one of FAMILIES."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    epsilon: float
    """Of the RMS norms."""
    activation: str
    """silu, gelu (erf) or gelu_tanh."""
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    merged: bool
    """qkv_proj and gate_up_proj instead of five matrices."""
    head_norms: bool
    """RMS norms of each head's query and key."""
    post_norms: bool
    """RMS norms behind attention and MLP, too."""
    norm_offset: float
    """What is added to the stored gammas of norms."""
    embedding_scale: float
    attention_scale: float
    windows: tuple[int, ...]
    """Of each layer: tokens that a token sees, itself included; 0: all before it."""
    ropes: tuple[Rope, ...]
    """Of each layer."""
    logit_softcap: float | None
    tied: bool
    """The embedding is the output's matrix, too."""
    context: int
    """Tokens for which the written model is the original."""
    content: dict[str, Any]
    """config.json of the result."""
    notes: tuple[str, ...]


def read_raw_config(folder: Path) -> dict[str, Any]:
    """Read config.json. Raises ModelError when there is none or it is no object."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"'{path}' must hold an object, got {type(content).__name__}")
    return content


def read_config(folder: Path) -> DecoderConfig:
    """Read and check config.json; missing keys have the defaults of transformers' class.

    Raises ModelError, naming the key, for what cannot be written.
    """
    raw = read_raw_config(folder)
    where = str(folder / "config.json")
    notes = []
    if raw.get("model_type") == "gemma3":
        raw = _text_part(raw, where)
        notes.append("only the text model was taken: images are not understood")
    family = str(raw.get("model_type"))
    if family not in FAMILIES:
        raise ModelError(
            f"'{where}': expected model_type {', '.join(FAMILIES)}, got {family!r}; "
            "other models are exported through Optimum Intel"
        )
    _refuse(raw, where)
    config = _standard(family, raw, where)
    if getattr(config, "attn_logit_softcapping", None):
        raise ModelError(
            f"'{where}': 'attn_logit_softcapping' is {config.attn_logit_softcapping}: attention on "
            "a paged KV cache has no soft cap. Write null there to leave it out, which changes "
            "answers a little"
        )
    windows = _windows(family, config, raw, where)
    head_size = (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    ropes, context = _ropes(config, windows, head_size, where)
    content = dict(raw)
    if context < config.max_position_embeddings:
        notes.append(
            f"longrope: the factors for up to {context} tokens were taken, to which the context is "
            f"limited; the original switches to others beyond, up to {config.max_position_embeddings}"
        )
        content["max_position_embeddings"] = context
    gemma = family in _GEMMAS
    biased = bool(getattr(config, "attention_bias", False))
    scalar = getattr(config, "query_pre_attn_scalar", None) if gemma else None
    result = DecoderConfig(
        family=family,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_size=head_size,
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
        activation=_activation(config, where),
        qkv_bias=family == "qwen2" or biased,
        output_bias=family != "qwen2" and biased,
        mlp_bias=bool(getattr(config, "mlp_bias", False)),
        merged=family == "phi3",
        head_norms=family in ("qwen3", "gemma3_text"),
        post_norms=family in ("gemma2", "gemma3_text"),
        norm_offset=1.0 if gemma else 0.0,
        embedding_scale=config.hidden_size**0.5 if gemma else 1.0,
        attention_scale=float(scalar or head_size) ** -0.5,
        windows=windows,
        ropes=ropes,
        logit_softcap=getattr(config, "final_logit_softcapping", None),
        tied=bool(config.tie_word_embeddings),
        context=context,
        content=content,
        notes=tuple(notes),
    )
    _check_numbers(result, where)
    return result


def _text_part(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The text model's section of an image model's config, with what generation needs."""
    text = raw.get("text_config")
    if not isinstance(text, dict):
        raise ModelError(f"'{where}' lacks 'text_config', in which gemma3 describes its text model")
    ids = {key: raw[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in raw}
    return {"tie_word_embeddings": True, **ids, **text, "model_type": "gemma3_text"}


def _refuse(raw: dict[str, Any], where: str) -> None:
    """Refuse what is not written, whatever the family."""
    for key, advice in {
        "quantization_config": "the weights are quantized already; give the original model",
        "use_bidirectional_attention": "only causal attention is supported",
        "attention_sinks": "attention sinks are not supported",
    }.items():
        if raw.get(key):
            raise ModelError(f"'{where}': '{key}' is {_short(raw[key])}: {advice}")
    names = raw.get("architectures") or []
    if names and not any(str(name).endswith("ForCausalLM") for name in names):
        others = [name for name in names if not str(name).endswith("ForConditionalGeneration")]
        if others:
            raise ModelError(
                f"'{where}': expected a model for text generation (...ForCausalLM) in "
                f"'architectures', got {', '.join(map(str, names))}"
            )


def _standard(family: str, raw: dict[str, Any], where: str) -> Any:
    """The config as transformers' own class completes it: defaults, and rope in one spelling."""
    try:
        with HeldStderr(*_NOTICES):
            from transformers import CONFIG_MAPPING

            return CONFIG_MAPPING[family].from_dict(dict(raw))
    except Exception as error:  # its checks raise various kinds
        raise ModelError(f"'{where}' is not a valid {family} configuration: {error}") from error


def _windows(family: str, config: Any, raw: dict[str, Any], where: str) -> tuple[int, ...]:
    window = getattr(config, "sliding_window", None)
    layers = int(config.num_hidden_layers)
    if family in ("mistral", "phi3"):
        kinds = set(raw.get("layer_types") or [])
        if window and len(kinds) > 1:
            raise ModelError(
                f"'{where}': 'layer_types' mixes {', '.join(sorted(kinds))}, which {family} lacks"
            )
        return (int(window or 0),) * layers
    types = getattr(config, "layer_types", None) or ["full_attention"] * layers
    known = {"full_attention": 0, "sliding_attention": int(window or 0)}
    if len(types) != layers or not set(types) <= set(known):
        raise ModelError(
            f"'{where}': expected 'layer_types' to hold full_attention or sliding_attention for "
            f"each of {layers} layers, got {_short(types)}"
        )
    return tuple(known[kind] for kind in types)


def _ropes(
    config: Any, windows: tuple[int, ...], head_size: int, where: str
) -> tuple[tuple[Rope, ...], int]:
    """The rotation of each layer, and the context for which they hold."""
    parameters = config.rope_parameters
    if "full_attention" not in parameters and "sliding_attention" not in parameters:
        rope = read_rope(parameters, head_size, config.max_position_embeddings, where)
        return (rope,) * len(windows), rope.context
    by_kind = {
        kind: read_rope(parameters[kind], head_size, config.max_position_embeddings, where)
        for kind in {_kind(config, layer) for layer in range(len(windows))}
    }
    ropes = tuple(by_kind[_kind(config, layer)] for layer in range(len(windows)))
    return ropes, min(rope.context for rope in ropes)


def _kind(config: Any, layer: int) -> str:
    return str(config.layer_types[layer])


def _activation(config: Any, where: str) -> str:
    for key in ("hidden_activation", "hidden_act"):
        name = getattr(config, key, None)
        if name is None:
            continue
        if name not in _ACTIVATIONS:
            raise ModelError(f"'{where}': expected '{key}' {', '.join(_ACTIVATIONS)}, got {name!r}")
        return _ACTIVATIONS[name]
    raise ModelError(f"'{where}' names no activation ('hidden_act')")


def _check_numbers(config: DecoderConfig, where: str) -> None:
    for key, value in {
        "num_hidden_layers": config.layers,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
    }.items():
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"'{where}': expected '{key}' of at least 1, got {value!r}")
    if config.heads % config.kv_heads != 0:
        raise ModelError(
            f"'{where}': expected 'num_attention_heads' ({config.heads}) to be a multiple of "
            f"'num_key_value_heads' ({config.kv_heads})"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
