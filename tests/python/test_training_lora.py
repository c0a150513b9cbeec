"""Training of int4 weights with absorbable adapters, on a tiny language model."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from training_models import Net, constant_shapes, constants, torch

from ovfast import training

transformers = pytest.importorskip("transformers")

_SIZE = 97


def batch(seed: int, rows: int = 8, length: int = 16) -> dict:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, _SIZE, (rows, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@functools.cache
def _original() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.15,  # large enough for predictions that differ from each other
        use_cache=False,
    )
    return transformers.Qwen2ForCausalLM(config).eval()


def teacher() -> torch.nn.Module:
    return copy.deepcopy(_original())


def loss_of(student: torch.nn.Module, original: torch.nn.Module, seed: int) -> torch.Tensor:
    example = batch(seed)
    with torch.no_grad():
        wanted = original(**example).logits
    return training.distillation_loss(student(**example).logits, wanted)


def test_adapters_win_back_what_int4_loses_and_vanish_in_the_export(tmp_path: Path) -> None:
    original = teacher()
    with torch.no_grad():
        before = original(**batch(0)).logits
    student = training.prepare_lora_qat(original, batch(0), group_size=32, rank=8)
    assert student.lm_head.weight is original.lm_head.weight, "no second copy of the weights"
    with torch.no_grad():
        assert torch.equal(original(**batch(0)).logits, before)
        first = float(loss_of(student, original, seed=1000))
    assert first > 1e-3, "int4 is not free"

    optimizer = torch.optim.AdamW(training.lora_parameter_groups(student, lr=2e-3))
    student.train()
    for seed in range(40):
        loss = loss_of(student, original, seed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():
        last = float(loss_of(student, original, seed=1000))
    # On sequences that were not trained on.
    assert last < 0.85 * first, (first, last)

    result = training.export_model(student, batch(0), tmp_path / "m", shapes=[[-1, -1]] * 2)
    assert result.form == "int4"
    assert result.difference < 5e-3  # torch multiplies by the f16 scales in f16
    # Seven matrices of 4 bits; table and last layer of 8.
    matrices = [(64, 2)] * 2 + [(32, 2)] * 2 + [(128, 2)] * 2 + [(64, 4)]
    assert sorted(constant_shapes(tmp_path / "m", "u4")) == sorted(
        [[rows, groups, size] for rows, groups in matrices for size in (32, 1)]
    ), "weights and zero points"
    assert all(c.shape != (8, 64) for c in constants(tmp_path / "m", {"f16", "f32", "bf16"}))
    # Other shapes than the example's; the scales are f16, and torch's quantizer has them in f32.
    example = batch(7, rows=2, length=9)
    compiled = ov.Core().compile_model(
        tmp_path / "m" / "openvino_model.xml",
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"},
    )
    got = next(iter(compiled({name: v.numpy() for name, v in example.items()}).values()))
    with torch.no_grad():
        wanted = student(**example).logits.numpy()
    assert np.abs(got - wanted).max() < 5e-3 * np.abs(wanted).max()

    training.save_checkpoint(student, tmp_path / "c.pt", weights=False)
    # bf16 adapters of rank 8, two numbers a group: far less than the weights.
    assert (tmp_path / "c.pt").stat().st_size < 0.6 * sum(
        4 * p.numel() for p in original.parameters()
    )
    restored, _ = training.load_checkpoint(teacher(), tmp_path / "c.pt")
    with torch.no_grad():
        assert torch.equal(restored.eval()(**example).logits, torch.tensor(wanted))


def test_only_adapters_and_ranges_are_trained() -> None:
    student = training.prepare_lora_qat(teacher(), batch(0), group_size=32, rank=8)
    adapters, ranges = training.lora_parameter_groups(student, lr=1e-3)
    assert (adapters["lr"], ranges["lr"]) == (1e-3, 1e-4)
    # Seven linear layers with A and B, lower end and width.
    assert (len(adapters["params"]), len(ranges["params"])) == (14, 14)
    trained = {id(p) for p in student.parameters() if p.requires_grad}
    assert trained == {id(p) for group in (adapters, ranges) for p in group["params"]}


def test_the_loss_is_the_divergence_per_position() -> None:
    generator = np.random.default_rng(0)
    student, wanted = generator.normal(size=(2, 3, 5, 7))
    p = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
    q = np.exp(student) / np.exp(student).sum(-1, keepdims=True)
    expected = (p * np.log(p / q)).sum(-1).mean()
    got = training.distillation_loss(torch.tensor(student), torch.tensor(wanted))
    assert float(got) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="different shapes"):
        training.distillation_loss(torch.ones(2, 3), torch.ones(2, 4))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="group"):
        training.prepare_lora_qat(teacher(), batch(0), group_size=48, rank=8)
    with pytest.raises(ValueError, match="rank=64"):
        training.prepare_lora_qat(teacher(), batch(0), group_size=32, rank=64)
    with pytest.raises(ValueError, match="positive"):
        training.prepare_lora_qat(teacher(), batch(0), rank=0)
    with pytest.raises(ValueError, match="no adapters"):
        training.lora_parameter_groups(Net())
