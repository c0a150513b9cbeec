"""The graph of a decoder in OpenVINO's standard operations, with the KV cache as state."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import openvino as ov
from openvino import op
from openvino import opset13 as ops
from openvino.op.util import Variable, VariableInfo

from ovfast.export.decoder.blocks import (
    Weights,
    dimension,
    floats,
    integers,
    repeat_heads,
    rms_norm,
    rotate,
    turns,
)
from ovfast.export.decoder.config import DecoderConfig
from ovfast.export.decoder.plan import LM_HEAD, Plan
from ovfast.export.decoder.rope import Rope

__all__ = ["build_graph"]

# OpenVINO numbers all nodes of a process.
_AUTOMATIC = re.compile(r"[A-Za-z]+_\d+")


def build_graph(config: DecoderConfig, plan: Plan) -> Any:
    """Build the model.

    Inputs: input_ids and position_ids i64 [batch, tokens], attention_mask i64 [batch, all tokens
    with those before], beam_idx i32 [batch]; and a parameter for each constant of the plan, with
    its name, which `ir.write_ir` makes a constant. Output: logits f32 [batch, tokens, vocabulary].
    """
    return _Graph(config, plan).build()


def _number_names(model: Any) -> None:
    """Give nodes without a name of ours one that does not depend on what was built before."""
    for number, node in enumerate(model.get_ordered_ops()):
        if _AUTOMATIC.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{number}")


class _Graph:
    def __init__(self, config: DecoderConfig, plan: Plan) -> None:
        self._config = config
        self._weights = Weights(plan)
        self._sinks: list[Any] = []
        self._inputs = {
            name: ops.parameter(shape, getattr(ov.Type, kind))
            for name, shape, kind in (
                ("input_ids", [-1, -1], "i64"),
                ("attention_mask", [-1, -1], "i64"),
                ("position_ids", [-1, -1], "i64"),
                ("beam_idx", [-1], "i32"),
            )
        }
        for name, parameter in self._inputs.items():
            parameter.set_friendly_name(name)
            parameter.output(0).get_tensor().set_names({name})
        self._batch = dimension(self._inputs["input_ids"], 0)
        self._past_tokens: Any = None
        self._masks: dict[int, Any] = {}
        self._turns: dict[int, tuple[Any, Any]] = {}

    def build(self) -> Any:
        config = self._config
        ids = ops.convert(self._inputs["input_ids"], "i32")
        x = ops.gather(self._weights.get("embed_tokens.weight"), ids, integers(0))
        if config.embedding_scale != 1.0:
            x = ops.multiply(x, floats(config.embedding_scale))
        for layer in range(config.layers):
            x = self._layer(x, layer)
        x = self._norm(x, "norm")
        logits = self._matmul(x, "embed_tokens" if config.tied else LM_HEAD)
        if config.logit_softcap:
            cap = floats(config.logit_softcap)
            logits = ops.multiply(ops.tanh(ops.divide(logits, cap)), cap)
        parameters = [*self._inputs.values(), *self._weights.parameters]
        model = ov.Model([ops.result(logits)], self._sinks, parameters, config.family)
        model.output(0).get_tensor().set_names({"logits"})
        _number_names(model)
        return model

    def _layer(self, x: Any, layer: int) -> Any:
        config, name = self._config, f"layers.{layer}"
        added = self._attention(self._norm(x, f"{name}.input_layernorm"), layer)
        before_mlp = "post_attention_layernorm"
        if config.post_norms:
            added = self._norm(added, f"{name}.post_attention_layernorm")
            before_mlp = "pre_feedforward_layernorm"
        x = ops.add(x, added)
        added = self._mlp(self._norm(x, f"{name}.{before_mlp}"), f"{name}.mlp")
        if config.post_norms:
            added = self._norm(added, f"{name}.post_feedforward_layernorm")
        return ops.add(x, added)

    def _mlp(self, x: Any, name: str) -> Any:
        gate = self._linear(x, f"{name}.gate_proj")
        if self._config.activation == "silu":
            gate = ops.swish(gate)
        else:
            gate = ops.gelu(gate, "tanh" if self._config.activation == "gelu_tanh" else "erf")
        product = ops.multiply(gate, self._linear(x, f"{name}.up_proj"))
        return self._linear(product, f"{name}.down_proj")

    def _attention(self, x: Any, layer: int) -> Any:
        config, name = self._config, f"layers.{layer}.self_attn"
        rope, size = config.ropes[layer], config.head_size
        queries = self._heads(x, f"{name}.q_proj", config.heads, f"{name}.q_norm")
        keys = self._heads(x, f"{name}.k_proj", config.kv_heads, f"{name}.k_norm")
        values = self._heads(x, f"{name}.v_proj", config.kv_heads)
        # A factor of all channels of queries and keys is one of the products.
        whole = rope.dims == size
        scale = config.attention_scale * (rope.factor**2 if whole else 1.0)
        cosines, sines = self._turns_of(rope, 1.0 if whole else rope.factor)
        queries = rotate(queries, cosines, sines, rope.dims, size)
        keys = rotate(keys, cosines, sines, rope.dims, size)
        keys = self._cached(keys, f"past_key_values.{layer}.keypresent.{layer}.key")
        values = self._cached(values, f"past_key_values.{layer}.valuepresent.{layer}.value")
        keys = repeat_heads(keys, config.heads, config.kv_heads, size)
        values = repeat_heads(values, config.heads, config.kv_heads, size)
        mask = self._mask(config.windows[layer])
        out = ops.scaled_dot_product_attention(queries, keys, values, mask, floats(scale))
        out = ops.transpose(out, integers([0, 2, 1, 3]))
        out = ops.reshape(out, integers([0, 0, config.heads * size]), special_zero=True)
        return self._linear(out, f"{name}.o_proj")

    def _heads(self, x: Any, module: str, heads: int, norm: str = "") -> Any:
        """[batch, tokens, columns] -> [batch, heads, tokens, size]."""
        x = self._linear(x, module)
        x = ops.reshape(x, integers([0, 0, heads, self._config.head_size]), special_zero=True)
        if norm and self._config.head_norms:
            x = self._norm(x, norm)
        return ops.transpose(x, integers([0, 2, 1, 3]))

    def _turns_of(self, rope: Rope, factor: float) -> tuple[Any, Any]:
        if id(rope) not in self._turns:
            self._turns[id(rope)] = turns(rope, self._inputs["position_ids"], factor)
        return self._turns[id(rope)]

    def _cached(self, x: Any, name: str) -> Any:
        """Keys or values of all tokens so far; x are those of the new ones."""
        heads, size = self._config.kv_heads, self._config.head_size
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, heads, -1, size])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        shape = ops.concat([self._batch, *(integers([n]) for n in (heads, 0, size))], 0)
        state = op.read_value(ops.broadcast(floats(0.0), shape), variable)
        past = ops.gather(state, self._inputs["beam_idx"], integers(0))
        if self._past_tokens is None:
            self._past_tokens = dimension(past, 2)
        present = ops.concat([past, x], 2)
        self._sinks.append(op.assign(present, variable))
        return present

    def _mask(self, window: int) -> Any:
        """What is added to scores, f32 [batch, 1, tokens, all tokens].

        The spelling in which the engine finds windows: (key <= query) & (key >= query - (w - 1)).
        A key that is padding is one of a later time, which nobody sees.
        """
        if window not in self._masks:
            one = integers(0)
            mask = self._inputs["attention_mask"]
            last = ops.squeeze(dimension(mask, 1), one)
            keys = ops.range(integers(0), last, integers(1), "i64")
            keys = ops.select(
                ops.not_equal(mask, integers(0)), ops.unsqueeze(keys, integers(0)), last
            )
            keys = ops.unsqueeze(keys, integers([1, 2]))
            tokens = ops.squeeze(dimension(self._inputs["input_ids"], 1), one)
            past = ops.squeeze(self._past_tokens, one)
            queries = ops.range(past, ops.add(past, tokens), integers(1), "i64")
            queries = ops.unsqueeze(queries, integers([0, 1, 3]))
            seen = ops.less_equal(keys, queries)
            if window:
                oldest = ops.subtract(queries, integers(window - 1))
                seen = ops.logical_and(seen, ops.greater_equal(keys, oldest))
            lowest = floats(np.finfo(np.float32).min)
            self._masks[window] = ops.select(seen, floats(0.0), lowest)
        return self._masks[window]

    def _norm(self, x: Any, name: str) -> Any:
        return rms_norm(x, self._weights.get(f"{name}.weight"), self._config.epsilon)

    def _linear(self, x: Any, name: str) -> Any:
        x = self._matmul(x, name)
        if self._weights.has(f"{name}.bias"):
            x = ops.add(x, self._weights.get(f"{name}.bias"))
        return x

    def _matmul(self, x: Any, name: str) -> Any:
        node = ops.matmul(x, self._weights.get(f"{name}.weight"), False, True)
        node.set_friendly_name(f"{name}/MatMul")
        return node
