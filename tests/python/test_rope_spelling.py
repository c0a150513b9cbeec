"""rope_parameters of transformers 5 in the keys of transformers 4: what comes out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovfast.errors import ModelError
from ovfast.export.rope_spelling import OldSpelling, respell

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN = {"rope_type": "default", "rope_theta": 1e6}


def translated(folder: Path, content: dict[str, Any]) -> OldSpelling | None:
    (folder / "config.json").write_text(json.dumps(content))
    return respell(folder)


@pytest.mark.parametrize(
    ("model_type", "parameters", "expected"),
    [
        ("qwen2", PLAIN, {"rope_theta": 1e6}),
        ("qwen2", {"rope_type": "default", "rope_theta": 1e4}, {"rope_theta": 1e4}),
        (
            "llama",
            {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        ),
        (
            "llama",
            {"type": "linear", "rope_theta": 1e4, "factor": 4.0},
            {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
        (
            "stablelm",
            {**PLAIN, "partial_rotary_factor": 0.25},
            {"rope_theta": 1e6, "partial_rotary_factor": 0.25},
        ),
        (
            "gpt_neox",
            {**PLAIN, "partial_rotary_factor": 0.25},
            {"rotary_emb_base": 1e6, "rotary_pct": 0.25},
        ),
        (
            "qwen2_vl_text",
            {**PLAIN, "mrope_section": [16, 24, 24]},
            {
                "rope_theta": 1e6,
                "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
            },
        ),
        (
            "phi3",
            {
                **PLAIN,
                "rope_type": "longrope",
                "short_factor": [1.0, 2.0],
                "long_factor": [2.0, 3.0],
                "original_max_position_embeddings": 64,
            },
            {
                "rope_theta": 1e6,
                "original_max_position_embeddings": 64,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": [1.0, 2.0],
                    "long_factor": [2.0, 3.0],
                },
            },
        ),
        (
            "gemma3_text",
            {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        (
            "modernbert",
            {
                "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            {"global_rope_theta": 160000.0, "local_rope_theta": 1e4},
        ),
        ("qwen9", {"full_attention": PLAIN, "linear_attention": PLAIN}, {"rope_theta": 1e6}),
        ("qwen2", {}, {}),
        ("qwen2_vl_vision", {"rope_type": "axial", "rope_theta": 10000.0}, {}),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_translated(
    model_type: str,
    parameters: dict[str, Any],
    expected: dict[str, Any],
    nested: bool,
    tmp_path: Path,
) -> None:
    level = {"model_type": model_type, "hidden_size": 8, "rope_parameters": parameters}
    content = {"model_type": "whole", "a": {"text_config": level}} if nested else level
    spelling = translated(tmp_path, content)
    assert spelling is not None
    got = spelling.content["a"]["text_config"] if nested else spelling.content
    assert got == {"model_type": model_type, "hidden_size": 8, **expected}
    assert len(spelling.notes) == (1 if expected else 0)
    assert all(note.startswith("a.text_config.") == nested for note in spelling.notes)


def test_nothing_to_translate(tmp_path: Path) -> None:
    assert translated(tmp_path, {"model_type": "qwen2", "rope_theta": 1e6}) is None
    assert translated(tmp_path, {"model_type": "bert", "a": {"b": {}}}) is None


def test_both_spellings_that_agree(tmp_path: Path) -> None:
    new = {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}
    old = {"rope_theta": 500000, "rope_scaling": {"type": "llama3", **LLAMA3}}
    spelling = translated(tmp_path, {"model_type": "llama", "rope_parameters": new, **old})
    assert spelling is not None
    assert spelling.content["rope_scaling"] == {"rope_type": "llama3", **LLAMA3}


@pytest.mark.parametrize(
    ("model_type", "parameters", "others", "message"),
    [
        ("qwen2", PLAIN, {"rope_theta": 1e4}, "and 'rope_theta' beside it disagree: 1000000.0 and"),
        ("llama", {"rope_type": "llama3", "rope_theta": 1e6, **LLAMA3}, {"rope_theta": 1e4}, "dis"),
        ("qwen2", PLAIN, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "disagree: null and"),
        ("gemma4", {**PLAIN, "rope_type": "proportional"}, {}, "got 'proportional'"),
        ("qwen2", {"rope_type": "default"}, {}, "a number above 0 as rope_theta, got None"),
        ("qwen2", {**PLAIN, "rope_theta": "1e6"}, {}, "got '1e6'"),
        ("qwen2", [1], {}, r"must be an object, got \[1\]"),
        ("gemma3_text", PLAIN, {}, "expected full_attention and sliding_attention"),
        ("gemma3_text", {"full_attention": PLAIN}, {}, "got full_attention"),
        (
            "gemma3_text",
            {
                "full_attention": PLAIN,
                "sliding_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
            },
            {},
            "no keys for such a scaling",
        ),
        (
            "olmo3",
            {"full_attention": PLAIN, "sliding_attention": {**PLAIN, "rope_theta": 1e4}},
            {},
            "one base for all layers, got 1000000.0 and 10000.0",
        ),
        (
            "qwen9",
            {"full_attention": PLAIN, "sliding_attention": {**PLAIN, "rope_theta": 1e4}},
            {},
            "differs by kind of layer",
        ),
        ("qwen9", {"full_attention": PLAIN, "no_rope": None}, {}, "expected a number above 0"),
    ],
)
def test_refused(
    model_type: str, parameters: Any, others: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        translated(tmp_path, {"model_type": model_type, "rope_parameters": parameters, **others})


def frequencies(base: float, channels: int) -> np.ndarray:
    return base ** -(np.arange(0, channels, 2) / channels)


@pytest.mark.parametrize(
    ("parameters", "found", "factor", "good"),
    [
        (PLAIN, frequencies(1e6, 32), 1.0, True),
        (PLAIN, frequencies(1e6, 64), 1.0, True),
        (PLAIN, frequencies(1e4, 32), 1.0, False),
        (PLAIN, frequencies(1e6, 32), 1.1, False),
        (PLAIN, np.ones((16, 2)), 1.0, False),
        ({**PLAIN, "rope_type": "linear", "factor": 4.0}, frequencies(1e6, 32) / 4, 1.0, True),
        ({**PLAIN, "rope_type": "linear", "factor": 4.0}, frequencies(1e6, 32), 1.0, False),
        ({**PLAIN, "rope_type": "dynamic", "factor": 4.0}, frequencies(1e6, 32), 1.0, True),
        ({**PLAIN, "partial_rotary_factor": 0.5}, frequencies(1e6, 16), 1.0, True),
        ({**PLAIN, "partial_rotary_factor": 0.5}, frequencies(1e6, 32), 1.0, False),
    ],
)
def test_frequencies_of_the_model_are_compared(
    parameters: dict[str, Any], found: np.ndarray, factor: float, good: bool, tmp_path: Path
) -> None:
    content = {
        "model_type": "llama",
        "hidden_size": 128,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "rope_parameters": parameters,
    }
    spelling = translated(tmp_path, content)
    assert spelling is not None
    rotary = [
        {"inv_freq": frequencies(123.0, 32).tolist(), "factor": 1.0},
        {"inv_freq": found.tolist(), "factor": factor},
    ]
    if good:
        spelling.check(rotary)
        return
    with pytest.raises(ModelError, match="does not compute the rotary positions"):
        spelling.check(rotary)
