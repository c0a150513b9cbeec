"""Which constants an IR's .bin holds, where each begins, and which tensor it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ovfast.errors import ModelError
from ovfast.export.decoder.checkpoint import Checkpoint
from ovfast.export.decoder.config import DecoderConfig
from ovfast.export.decoder.weight_format import WeightFormat, fit_group

__all__ = ["LM_HEAD", "Plan", "Stored", "Unit", "Weight", "make_plan"]

LM_HEAD = "lm_head"
_EMBEDDING = "embed_tokens"
_ALIGNMENT = 64  # bytes: kernels read whole cache lines
_BITS = {"u8": 8, "i8": 8, "u4": 4, "i4": 4, "f16": 16, "f32": 32}
# Of tensors that say nothing that config.json does not.
_IGNORED = (".rotary_emb.inv_freq", ".masked_bias")
_OTHER_MODELS = ("vision_tower.", "multi_modal_projector.")  # beside the text model of gemma3
_SHOWN = 3


@dataclass(frozen=True)
class Stored:
    """A constant of the IR."""

    name: str
    type: str
    """OpenVINO's name: i4, u8, f16, ..."""
    shape: tuple[int, ...]
    offset: int
    """In the .bin, bytes."""
    size: int
    """Bytes."""

    def row_offset(self, row: int) -> int:
        """Where a row begins in the .bin; only rows of an even number do with 4 bits."""
        return self.offset + math.prod(self.shape[1:]) * _BITS[self.type] * row // 8


@dataclass(frozen=True)
class Weight:
    """A matrix [rows, columns] or vector [rows] of the model."""

    name: str
    tensor: str
    """Of the checkpoint."""
    first: int
    """Of the tensor's rows."""
    shape: tuple[int, ...]
    format: WeightFormat
    values: Stored
    scales: Stored | None = None
    zero_points: Stored | None = None
    added: float = 0.0
    """To the tensor's numbers."""


@dataclass(frozen=True)
class Unit:
    """What is written between two notes of how far the export is."""

    name: str
    weights: tuple[Weight, ...]

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return sum(math.prod(weight.shape) for weight in self.weights)


@dataclass(frozen=True)
class Plan:
    """All that the .bin holds."""

    units: tuple[Unit, ...]
    size: int
    """Bytes."""
    notes: tuple[str, ...]
    """Layers that could not have the format that was asked for."""
    weights: dict[str, Weight] = field(repr=False)
    """By name, such as layers.0.self_attn.q_proj.weight."""


def make_plan(
    checkpoint: Checkpoint, config: DecoderConfig, layers: WeightFormat, tables: WeightFormat
) -> Plan:
    """Lay a model out.

    Args:
        checkpoint: The tensors.
        config: What they must be.
        layers: The format of linear layers.
        tables: The format of embedding and lm_head.

    Raises ModelError when a tensor is missing, has another shape or type, or is not understood.
    """
    planner = _Planner(checkpoint, _prefix(checkpoint), layers, tables, config.norm_offset)
    units = [Unit("embedding", (planner.table(_EMBEDDING, config.vocabulary, config.hidden),))]
    for layer in range(config.layers):
        weights = tuple(_layer(planner, config, f"layers.{layer}"))
        units.append(Unit(f"layer {layer + 1} of {config.layers}", weights))
    last = [planner.norm("norm.weight", config.hidden)]
    if not config.tied:
        last.append(planner.table(LM_HEAD, config.vocabulary, config.hidden))
    units.append(Unit("output", tuple(last)))
    _refuse_unknown(checkpoint, planner.used, config)
    everything = {weight.name: weight for unit in units for weight in unit.weights}
    return Plan(tuple(units), planner.offset, tuple(planner.notes()), everything)


def _layer(planner: _Planner, config: DecoderConfig, name: str) -> Iterator[Weight]:
    attention, mlp = f"{name}.self_attn", f"{name}.mlp"
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    yield planner.norm(f"{name}.input_layernorm.weight", config.hidden)
    parts = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    merged = f"{attention}.qkv_proj" if config.merged else None
    yield from planner.linears(attention, parts, config.hidden, config.qkv_bias, merged)
    if config.head_norms:
        yield planner.norm(f"{attention}.q_norm.weight", config.head_size)
        yield planner.norm(f"{attention}.k_norm.weight", config.head_size)
    yield from planner.linears(attention, {"o_proj": config.hidden}, queries, config.output_bias)
    yield planner.norm(f"{name}.post_attention_layernorm.weight", config.hidden)
    if config.post_norms:
        yield planner.norm(f"{name}.pre_feedforward_layernorm.weight", config.hidden)
        yield planner.norm(f"{name}.post_feedforward_layernorm.weight", config.hidden)
    parts = {"gate_proj": config.intermediate, "up_proj": config.intermediate}
    merged = f"{mlp}.gate_up_proj" if config.merged else None
    yield from planner.linears(mlp, parts, config.hidden, config.mlp_bias, merged)
    yield from planner.linears(
        mlp, {"down_proj": config.hidden}, config.intermediate, config.mlp_bias
    )


@dataclass
class _Planner:
    checkpoint: Checkpoint
    prefix: str
    layers: WeightFormat
    tables: WeightFormat
    norm_offset: float
    offset: int = 0
    used: set[str] = field(default_factory=set)
    refitted: dict[str, list[str]] = field(default_factory=dict)
    """Format -> layers that have it because a group divides no row."""

    def linears(
        self,
        module: str,
        parts: dict[str, int],
        columns: int,
        bias: bool,
        merged: str | None = None,
    ) -> Iterator[Weight]:
        """Matrices [rows, columns] and biases of some modules; merged: rows of a single one."""
        form = fit_group(self.layers, columns)
        first, total = 0, sum(parts.values())
        for part, rows in parts.items():
            name = f"{module}.{part}"
            source, of = (merged, total) if merged else (name, rows)
            begin = first if merged else 0
            if form != self.layers:
                self.refitted.setdefault(form.text, []).append(name)
            tensor = self._find(f"{source}.weight", (of, columns))
            yield self._weight(f"{name}.weight", tensor, begin, (rows, columns), form)
            if bias:
                tensor = self._find(f"{source}.bias", (of,))
                yield self._weight(f"{name}.bias", tensor, begin, (rows,), WeightFormat(32))
            first += rows

    def table(self, name: str, rows: int, columns: int) -> Weight:
        """The embedding or the lm_head."""
        tensor = self._find(f"{name}.weight", (rows, columns))
        return self._weight(f"{name}.weight", tensor, 0, (rows, columns), self.tables)

    def norm(self, name: str, length: int) -> Weight:
        """The gammas of a norm, kept in f32."""
        tensor = self._find(name, (length,))
        values = self._store(name, "f32", (length,))
        form = WeightFormat(32)
        return Weight(name, tensor, 0, (length,), form, values, added=self.norm_offset)

    def notes(self) -> Iterator[str]:
        """What became other than it was asked for."""
        for text, names in self.refitted.items():
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            yield (
                f"{len(names)} matrices are {text}, because their columns are no multiple of "
                f"{self.layers.group}: {shown}"
            )

    def _find(self, name: str, shape: tuple[int, ...]) -> str:
        if name == f"{LM_HEAD}.weight":
            candidates = [self.prefix.removesuffix("model.") + name, name]
            tensor = next((n for n in candidates if n in self.checkpoint.tensors), candidates[0])
        else:
            tensor = self.prefix + name
        self.checkpoint.find(tensor, shape)
        self.used.add(tensor)
        return tensor

    def _weight(
        self, name: str, tensor: str, first: int, shape: tuple[int, ...], form: WeightFormat
    ) -> Weight:
        if len(shape) == 1:
            values = self._store(name, form.type, shape)
            return Weight(name, tensor, first, shape, form, values)
        values = self._store(name, form.type, form.shape(*shape))
        scales = zeros = None
        if form.quantized:
            scales = self._store(f"{name}/scale", "f16", form.scale_shape(*shape))
        if form.asymmetric:
            zeros = self._store(f"{name}/zero_point", form.type, form.scale_shape(*shape))
        return Weight(name, tensor, first, shape, form, values, scales, zeros)

    def _store(self, name: str, type_: str, shape: tuple[int, ...]) -> Stored:
        size = -(-math.prod(shape) * _BITS[type_] // 8)
        stored = Stored(name, type_, shape, self.offset, size)
        self.offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        return stored


def _prefix(checkpoint: Checkpoint) -> str:
    """What stands before layers.0 and embed_tokens: "model." mostly."""
    found = [
        name.removesuffix(f"{_EMBEDDING}.weight")
        for name in checkpoint.tensors
        if name.endswith(f"{_EMBEDDING}.weight") and not name.startswith(_OTHER_MODELS)
    ]
    if len(found) != 1:
        raise ModelError(
            f"'{checkpoint.folder}': expected one tensor '...{_EMBEDDING}.weight', found "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    return found[0]


def _refuse_unknown(checkpoint: Checkpoint, used: set[str], config: DecoderConfig) -> None:
    """A tensor that nothing reads means that the model computes something else."""
    unknown = sorted(
        name
        for name in checkpoint.tensors.keys() - used
        if not name.endswith(_IGNORED)
        and not (config.family == "gemma3_text" and any(part in name for part in _OTHER_MODELS))
        and not (config.tied and name.endswith(f"{LM_HEAD}.weight"))
    )
    if unknown:
        shown = ", ".join(unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        raise ModelError(
            f"'{checkpoint.folder}' holds {len(unknown)} tensors that a model of type "
            f"{config.family} with this config.json does not have: {shown}"
        )
