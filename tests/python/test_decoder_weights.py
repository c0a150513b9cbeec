"""Rounding of weights, their layout in the .bin, rope frequencies and what is refused."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from tiny_folders import (
    FOLDERS,
    config,
    tensors,
    to_bf16,
    write_folder,
    write_parts,
    write_safetensors,
)

from ovfast.errors import ModelError
from ovfast.export.decoder.checkpoint import Checkpoint
from ovfast.export.decoder.config import read_config
from ovfast.export.decoder.graph import build_graph
from ovfast.export.decoder.ir import write_ir
from ovfast.export.decoder.plan import Plan, make_plan
from ovfast.export.decoder.weight_format import (
    CHOICES,
    WeightFormat,
    fit_group,
    formats,
    round_rows,
)
from ovfast.export.decoder.writer import write_weights


def unpacked(codes: np.ndarray, form: WeightFormat, shape: tuple[int, ...]) -> np.ndarray:
    if form.bits == 4:
        pairs = np.stack([codes & 15, codes >> 4], -1).reshape(-1)[: np.prod(shape)]
        codes = pairs if form.asymmetric else ((pairs ^ 8).astype(np.int32) - 8)
    elif not form.asymmetric:
        codes = codes.view(np.int8)
    return codes.astype(np.float64).reshape(shape)


@pytest.mark.parametrize(
    "form",
    [
        WeightFormat(4, False, 32),
        WeightFormat(4, True, 32),
        WeightFormat(8, False),
        WeightFormat(8, True),
        WeightFormat(8, True, 64),
    ],
    ids=lambda form: form.text,
)
def test_rounding(form: WeightFormat) -> None:
    random = np.random.default_rng(0)
    rows = (random.standard_normal((7, 96 if form.group == 32 else 128)) * 0.05).astype(np.float32)
    rows[0] = 0
    rows[1] = np.abs(rows[1]) + 1  # far from 0: its zero point is at the end of the levels
    rows[2] *= 1e-9  # below what an f16 scale can say
    codes = round_rows(rows, form, "name")
    shape, scale_shape = form.shape(*rows.shape), form.scale_shape(*rows.shape)
    assert codes.scales is not None
    scales = codes.scales.astype(np.float64).reshape(scale_shape)
    zeros: Any = 0.0
    if codes.zero_points is not None:
        zeros = unpacked(codes.zero_points, form, scale_shape)
    values = (unpacked(codes.values, form, shape) - zeros) * scales
    wanted = rows.reshape(shape)
    # Half a step, and another half at the ends of the range, where a rounded zero point or the
    # missing code 8 cuts it; and what rounding the scale to f16 (1 in 2048) adds up to there.
    slack = 1 + (1 << form.bits) / 2048
    assert (np.abs(values - wanted) <= slack * np.abs(scales) + 1e-7).all()
    inner = np.abs(values - wanted) <= (0.5 + 1e-3) * np.abs(scales) + 1e-7
    assert inner.mean() > 0.95
    assert not values[0].any()


def test_symmetric_codes_reach_both_ends() -> None:
    rows = np.linspace(-1, 0.5, 32, dtype=np.float32)[None]
    for sign in (1, -1):
        codes = round_rows(sign * rows, WeightFormat(4, False, 32), "name")
        assert codes.scales is not None
        assert codes.scales.item() == sign / 8  # signed, so that the farthest number is -8
        assert unpacked(codes.values, WeightFormat(4), (32,)).min() == -8


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(bits: int, value: float) -> None:
    rows = np.ones((4, 64), np.float32)
    rows[2, 3] = value
    with pytest.raises(ModelError, match="the tensor 'a.b.weight' holds NaN"):
        round_rows(rows, WeightFormat(bits), "a.b.weight")


def test_numbers_beyond_f16() -> None:
    rows = np.full((1, 64), 1e5, np.float32)
    with pytest.raises(ModelError, match=r"beyond what f16 holds \(65504\)"):
        round_rows(rows, WeightFormat(16), "x")
    with pytest.raises(ModelError, match="beyond what f16 holds"):
        round_rows(rows * 100, WeightFormat(4, False, 32), "x")


@pytest.mark.parametrize(
    ("columns", "group", "bits"),
    [(256, 128, 4), (192, 64, 4), (96, 32, 4), (48, 0, 8), (1000, 0, 8)],
)
def test_group_that_does_not_divide(columns: int, group: int, bits: int) -> None:
    form = fit_group(formats("int4", 128)[0], columns)
    assert (form.group, form.bits) == (group, bits)


@pytest.mark.parametrize(
    ("weights", "group", "message"),
    [
        ("int3", 128, "weights must be one of int4, int4-asym, int8, int8-sym, f16, got 'int3'"),
        ("int4", 16, "group_size must be a power of two of at least 32, got 16"),
        ("int4", 96, "group_size must be a power of two of at least 32, got 96"),
        ("int8", 64, "group_size is for int4 weights, got 64 for int8"),
        ("f16", 128, "group_size is for int4 weights, got 128 for f16"),
        ("int4", -1, "group_size must be a power of two of at least 32, got -1"),
    ],
)
def test_options(weights: str, group: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        formats(weights, group)


def write(folder: Path, out: Path, weights: str, group: int = 64) -> tuple[Plan, Path]:
    out.mkdir()
    checkpoint, decoder = Checkpoint(folder), read_config(folder)
    plan = make_plan(checkpoint, decoder, *formats(weights, group if "int4" in weights else None))
    binary = out / "openvino_model.bin"
    write_weights(checkpoint, plan, binary, "key", lambda fraction, what: None)
    return plan, write_ir(build_graph(decoder, plan), plan, binary)


def decompressed(xml: Path, name: str) -> np.ndarray:
    """What OpenVINO makes of a weight, by its own arithmetic."""
    model = openvino.Core().read_model(xml)
    node = next(node for node in model.get_ops() if node.get_friendly_name() == f"{name}/f32")
    part = openvino.Model([node.output(0)], [], "weight")
    compiled = openvino.Core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values: np.ndarray = compiled([])[0]
    return values


@pytest.mark.parametrize("weights", CHOICES)
def test_written_weights_are_the_original(weights: str, tmp_path: Path) -> None:
    """Through the file, and through OpenVINO's own decompression."""
    folder = write_folder(tmp_path / "folder", "phi3")  # whose matrices are merged
    original = tensors(config("phi3"))
    plan, xml = write(folder, tmp_path / "out", weights)
    merged = original["model.layers.1.self_attn.qkv_proj.weight"].astype(np.float32)
    gates = original["model.layers.1.mlp.gate_up_proj.weight"].astype(np.float32)
    for name, wanted in (
        ("layers.1.self_attn.k_proj.weight", merged[128:192]),
        ("layers.1.mlp.up_proj.weight", gates[192:]),
        ("embed_tokens.weight", original["model.embed_tokens.weight"].astype(np.float32)),
    ):
        form = plan.weights[name].format
        found = decompressed(xml, name)
        assert found.shape == wanted.shape
        if not form.quantized:
            np.testing.assert_array_equal(found, wanted)
            continue
        # A step of a row is at most its range over the levels (symmetric: twice the larger side).
        spread = 2 * np.abs(wanted).max() / ((1 << form.bits) - 2)
        assert np.abs(found - wanted).max() < spread  # at the ends one step, elsewhere half of one
        assert np.abs(found - wanted).mean() < 0.4 * spread


def test_constants_are_apart_and_aligned(tmp_path: Path) -> None:
    plan, xml = write(write_folder(tmp_path / "folder", "qwen2"), tmp_path / "out", "int4-asym")
    stored = sorted(
        (part.offset, part.size)
        for weight in plan.weights.values()
        for part in (weight.values, weight.scales, weight.zero_points)
        if part is not None
    )
    assert all(offset % 64 == 0 for offset, _ in stored)
    assert all(a + size <= b for (a, size), (b, _) in pairwise(stored))
    assert xml.with_suffix(".bin").stat().st_size > plan.size
    assert not list(xml.parent.glob("*.small"))


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_dtypes(dtype: str, tmp_path: Path) -> None:
    """The same numbers from f16 and from wider types."""
    folder = write_folder(tmp_path / "halves", "llama")
    halves = tensors(config("llama"))
    if dtype == "BF16":  # numbers that both hold
        halves = {
            name: ((to_bf16(values).astype(np.uint32) << 16).view(np.float32)).astype(np.float16)
            for name, values in halves.items()
        }
        write_parts(folder, config("llama"), halves)
        wide = {name: to_bf16(values) for name, values in halves.items()}
    else:
        wide = {name: values.astype(np.float32) for name, values in halves.items()}
    other = write_folder(tmp_path / "wide", "llama")
    write_safetensors(other / "model.safetensors", wide, dtype)
    one = write(folder, tmp_path / "a", "int4")[1].with_suffix(".bin")
    two = write(other, tmp_path / "b", "int4")[1].with_suffix(".bin")
    assert one.read_bytes() == two.read_bytes()


def test_many_rows_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows would be one, with an odd number of groups each: zero points of half a byte more."""
    monkeypatch.setattr("ovfast.export.decoder.writer._CHUNK", 800)
    folder = write_folder(tmp_path / "folder", "llama-biases", hidden_size=160, head_dim=32)
    pieces = write(folder, tmp_path / "pieces", "int4-asym", 32)[1].with_suffix(".bin")
    monkeypatch.undo()
    whole = write(folder, tmp_path / "whole", "int4-asym", 32)[1].with_suffix(".bin")
    assert pieces.read_bytes() == whole.read_bytes()


def plan_of(folder: Path) -> Plan:
    return make_plan(Checkpoint(folder), read_config(folder), *formats("int4", 64))


def test_shards(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", "qwen3")
    whole = write(folder, tmp_path / "whole", "int8")[1].with_suffix(".bin").read_bytes()
    made = tensors(config("qwen3"))
    names = sorted(made)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    (folder / "model.safetensors").unlink()
    for file, some in parts.items():
        write_safetensors(folder / file, {name: made[name] for name in some}, "F16")
    with pytest.raises(ModelError, match=r"holds 2 safetensors files and no model\.safetensors"):
        Checkpoint(folder)
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = write(folder, tmp_path / "sharded", "int8")[1].with_suffix(".bin")
    assert sharded.read_bytes() == whole

    index["weight_map"]["model.norm.bias"] = "b.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="lacks the tensor 'model.norm.bias', which model.safet"):
        Checkpoint(folder)
    index["weight_map"]["model.norm.bias"] = "../b.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="lies outside of the folder"):
        Checkpoint(folder)
    index["weight_map"]["model.norm.bias"] = "c.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"c\.safetensors' cannot be read: No such file"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.pop("model.layers.1.mlp.up_proj.weight"), r"lacks the tensor 'model\."),
        (
            lambda made: made.update({"model.norm.weight": np.ones(64, np.float16)}),
            r"expected tensor 'model\.norm\.weight' of shape \[128\], got \[64\]",
        ),
        (
            lambda made: made.update({"model.norm.weight": np.ones(128, np.int8)}),
            r"expected tensor 'model\.norm\.weight' of type F32, F16, BF16, got I8",
        ),
        (
            lambda made: made.update({"model.layers.0.extra.weight": np.ones(2, np.float16)}),
            r"holds 1 tensors that a model of type llama .* model\.layers\.0\.extra\.weight",
        ),
        (
            lambda made: made.pop("model.embed_tokens.weight"),
            r"expected one tensor '\.\.\.embed_tokens\.weight', found none",
        ),
        (
            lambda made: made.pop("lm_head.weight"),
            r"lacks the tensor 'lm_head\.weight' \[480, 128\]",
        ),
    ],
)
def test_tensors_that_do_not_fit(change: Any, message: str, tmp_path: Path) -> None:
    made = tensors(config("llama"))
    change(made)
    write_parts(tmp_path, config("llama"), made)
    with pytest.raises(ModelError, match=message):
        plan_of(tmp_path)


def test_tensors_that_say_nothing_new(tmp_path: Path) -> None:
    made = tensors(config("qwen2"))
    made["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, np.float16)
    made["lm_head.weight"] = made["model.embed_tokens.weight"].copy()  # which is tied to it
    write_parts(tmp_path, config("qwen2"), made)
    assert "lm_head.weight" not in plan_of(tmp_path).weights


def test_damaged_files(tmp_path: Path) -> None:
    file = write_folder(tmp_path, "llama") / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    with pytest.raises(ModelError, match=r"truncated: the tensor '.*' ends at byte \d+, the file"):
        Checkpoint(tmp_path)
    file.write_bytes(data[:100])
    with pytest.raises(ModelError, match="is truncated or no safetensors file"):
        Checkpoint(tmp_path)
    file.write_bytes(struct.pack("<Q", 4) + b"oops" + data)
    with pytest.raises(ModelError, match="has a damaged header"):
        Checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(ModelError, match="holds 0 safetensors files"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"model_type": "gpt2"}, r"expected model_type llama, .*, got 'gpt2'"),
        (
            "llama",
            {"quantization_config": {"bits": 4}},
            "'quantization_config' is .*original model",
        ),
        ("llama", {"hidden_act": "relu2"}, "expected 'hidden_act' silu, .*, got 'relu2'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "expected 'rope_type' default, linear, llama3, yarn, longrope .*got 'dynamic'",
        ),
        ("llama", {"num_key_value_heads": 3}, "multiple of 'num_key_value_heads'"),
        ("llama", {"num_hidden_layers": 0}, "expected 'num_hidden_layers' of at least 1, got 0"),
        ("gemma2", {"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' is 50.0"),
        ("gemma3", {"use_bidirectional_attention": True}, "'use_bidirectional_attention' is True"),
        (
            "mistral",
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            "'layer_types' mixes full_attention, sliding_attention",
        ),
        ("llama", {"hidden_size": "many"}, "is not a valid llama configuration"),
    ],
)
def test_configurations_that_are_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config(name, **changes)))
    with pytest.raises(ModelError, match=message):
        read_config(tmp_path)


def test_models_for_other_tasks_are_refused(tmp_path: Path) -> None:
    content = {**config("llama"), "architectures": ["LlamaForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"ForCausalLM.*got LlamaForSequenceClassification"):
        read_config(tmp_path)


def test_gemma2_caps_scores_unless_it_says_no(tmp_path: Path) -> None:
    content = config("gemma2")
    del content["attn_logit_softcapping"]  # whose default is 50
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"'attn_logit_softcapping' is 50\.0"):
        read_config(tmp_path)


def test_longrope_limits_the_context(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config("phi3-longrope")))
    decoder = read_config(tmp_path)
    assert decoder.context == decoder.content["max_position_embeddings"] == 64
    assert "the context is limited" in decoder.notes[0]


@pytest.mark.parametrize("name", FOLDERS)
def test_frequencies(name: str, tmp_path: Path) -> None:
    """Bit for bit those of transformers, wherever it has them."""
    torch = pytest.importorskip("torch")
    from transformers import CONFIG_MAPPING
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    (tmp_path / "config.json").write_text(json.dumps(config(name)))
    decoder = read_config(tmp_path)
    original = CONFIG_MAPPING[decoder.family].from_dict(config(name))
    for layer, rope in enumerate(decoder.ropes):
        nested = "full_attention" in original.rope_parameters
        kind = original.layer_types[layer] if nested else None
        parameters = original.rope_parameters[kind] if nested else original.rope_parameters
        if parameters["rope_type"] == "default":
            dims = int(decoder.head_size * parameters.get("partial_rotary_factor", 1.0))
            powers = torch.arange(0, dims, 2, dtype=torch.float) / dims
            expected, factor = 1.0 / parameters["rope_theta"] ** powers, 1.0
        else:
            function = ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
            expected, factor = function(original, None, layer_type=kind)
        np.testing.assert_allclose(rope.inv_freq, expected.numpy(), rtol=1e-6)
        assert rope.factor == pytest.approx(factor)
