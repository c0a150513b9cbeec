"""Profiles: figures that fit together, on made-up times and on a tiny model."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from ovfast import _core
from ovfast.cli.main import cli
from ovfast.errors import CapacityError
from ovfast.profile import (
    ATTENTION,
    OTHER,
    Line,
    Phase,
    Profile,
    format_profile,
    profile_dict,
    profile_model,
    summarize,
)


def layer(name, operation, packed_bytes=0) -> Any:
    return SimpleNamespace(name=name, operation=operation, packed_bytes=packed_bytes)


def took(name, seconds) -> Any:
    return SimpleNamespace(name=name, seconds=seconds)


def test_summarize():
    layers = [
        layer("Gather_5", "Embedding", 900),
        layer("MatMul_7_blk.0.Qcur", "QKV", 100),
        layer("MatMul_9_blk.12.Qcur", "QKV", 110),
        layer("__module.model.layers.3.mlp.down_proj/aten::linear/MatMul", "GatedMLP", 50),
        layer("MatMul_11_result_output", "LMHead", 400),
        layer("MatMul_13_router", ""),
        layer("MatMul_15_blk.1.gone", "FullyConnected", 70),
    ]
    times = [
        took("MatMul_9_blk.12.Qcur", 0.4),
        took("MatMul_7_blk.0.Qcur", 0.2),
        took("__module.model.layers.3.mlp.down_proj/aten::linear/MatMul", 3.0),
        took("Gather_5", 0.02),
        took("PagedAttentionExtension_21", 8.0),
        took("PagedAttentionExtension_22_bf16_f32", 2.0),
        took("MatMul_13_router", 6.0),
        took("Add_1", 6.0),
    ]
    assert summarize(times, layers, 2) == [
        Line(
            "GatedMLP",
            "mlp.down_proj",
            ["__module.model.layers.3.mlp.down_proj/aten::linear/MatMul"],
            1.5,
            50,
        ),
        Line(
            "QKV", "Qcur", ["MatMul_7_blk.0.Qcur", "MatMul_9_blk.12.Qcur"], pytest.approx(0.3), 210
        ),
        Line("Embedding", "Gather_5", ["Gather_5"], 0.01, None),
        Line("LMHead", "result_output", ["MatMul_11_result_output"], 0.0, 400),
        Line("FullyConnected", "gone", ["MatMul_15_blk.1.gone"], 0.0, 70),
        Line(
            ATTENTION,
            "",
            ["PagedAttentionExtension_21", "PagedAttentionExtension_22_bf16_f32"],
            5.0,
            None,
        ),
        Line(OTHER, "", ["MatMul_13_router", "Add_1"], 6.0, None),
    ]


TEXT = """
Decoding, 1 token a step, 2 threads, attention of ovfast; memory reads at 12.5 GB/s:
operation       layer          count     ms   share     MB read        GB/s   of memory
GatedMLP        ffn_out            2   4.00   40.0%        40.0        10.0         80%
LMHead          result_output      1   2.00   20.0%  up to 30.0  up to 15.0  up to 120%
attention                          1   1.00   10.0%
other                              2   2.00   20.0%
all operations                         9.00   90.0%  up to 70.0   up to 7.8   up to 62%
between them                           0.60    6.0%
the engine                             0.40    4.0%
a step                                10.00  100.0%  up to 70.0   up to 7.0   up to 56%

Prefill, 256 tokens a step:
operation       layer    count      ms   share
GatedMLP        ffn_out      1   80.00   80.0%
all operations                   80.00   80.0%
between them                     10.00   10.0%
the engine                       10.00   10.0%
a step                          100.00  100.0%
"""


def test_format():
    decode = Phase(
        tokens=1,
        steps=32,
        step_seconds=0.010,
        infer_seconds=0.0096,
        lines=[
            Line("GatedMLP", "ffn_out", ["a", "b"], 0.004, 40_000_000),
            Line("LMHead", "result_output", ["c"], 0.002, 30_000_000),
            Line(ATTENTION, "", ["d"], 0.001, None),
            Line(OTHER, "", ["e", "f"], 0.002, None),
        ],
    )
    prefill = Phase(256, 3, 0.1, 0.09, [Line("GatedMLP", "ffn_out", ["a"], 0.08, 40_000_000)])
    text = format_profile(Profile(2, "ovfast", 12.5e9, decode, prefill))
    # 40 MB in 4 ms are 10 GB/s, which is 80 % of 12.5; all in all 70 MB in 9 ms of 10.
    assert text.splitlines() == TEXT.strip().splitlines()


def check_phase(phase, layers):
    """`phase` as JSON has it."""
    lines = phase["lines"]
    named = [name for line in lines for name in line["layers"]]
    assert len(named) == len(set(named))
    assert set(named) > {layer.name for layer in layers}
    assert all(line["seconds"] >= 0 for line in lines)
    assert [line["operation"] for line in lines][-2:] == [ATTENTION, OTHER]
    assert phase["operations_seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
    # Times of operations are rounded to microseconds, which may amount to 100 of them in a step.
    assert 0 < phase["operations_seconds"] < phase["infer_seconds"] + 2e-4
    assert phase["infer_seconds"] < phase["step_seconds"] * 1.5
    for operation in {layer.operation for layer in layers}:
        seconds = sum(line["seconds"] for line in lines if line["operation"] == operation)
        assert seconds > 0, operation
        sizes = [layer.packed_bytes for layer in layers if layer.operation == operation]
        read = sum(line["bytes"] or 0 for line in lines if line["operation"] == operation)
        assert read == (0 if operation == "Embedding" else sum(sizes))


def test_tiny_model(tiny_model):
    _, model_dir = tiny_model("qwen2", "Q8_0")
    profile = profile_model(model_dir, progress=False)
    layers = _core.inspect_packing(model_dir).layers
    assert profile.threads > 0
    assert profile.read_bandwidth > 1e8
    result = json.loads(json.dumps(profile_dict(profile)))
    assert list(result) == ["threads", "attention", "read_bandwidth", "decode", "prefill"]
    assert (result["decode"]["tokens"], result["decode"]["steps"]) == (1, 32)
    assert (result["prefill"]["tokens"], result["prefill"]["steps"]) == (256, 3)
    for phase in ("decode", "prefill"):
        check_phase(result[phase], layers)
    # Steps of the two kinds do not mix: 256 tokens take the layers longer than one.
    mlp = [
        next(line["seconds"] for line in result[phase]["lines"] if line["operation"] == "GatedMLP")
        for phase in ("decode", "prefill")
    ]
    assert mlp[0] < mlp[1]


def test_command(tiny_model):
    _, model_dir = tiny_model("qwen2", "Q8_0")
    run = CliRunner().invoke(cli, ["inspect", str(model_dir), "--profile", "--no-progress"])
    assert run.exit_code == 0, run.output
    assert "Decoding, 1 token a step" in run.output
    assert "Prefill, 256 tokens a step" in run.output
    run = CliRunner().invoke(
        cli, ["inspect", str(model_dir), "--profile", "--json", "--no-progress"]
    )
    assert run.exit_code == 0, run.output
    check_phase(
        json.loads(run.stdout)["profile"]["decode"], _core.inspect_packing(model_dir).layers
    )
    run = CliRunner().invoke(cli, ["inspect", str(model_dir), "--json", "--no-progress"])
    assert "profile" not in json.loads(run.stdout)


def test_short_context(tmp_path):
    from gguf import GGMLQuantizationType
    from tiny_models import Shape, write_gguf

    import ovfast

    gguf = tmp_path / "model.gguf"
    write_gguf(gguf, "qwen2", GGMLQuantizationType.F16, shape=Shape(context=128))
    ovfast.export(gguf, tmp_path / "exported", progress=False)
    with pytest.raises(CapacityError, match=r"takes 257 tokens .* has 128"):
        profile_model(tmp_path / "exported", progress=False)
