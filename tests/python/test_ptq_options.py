"""What post-training quantization refuses, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_harness import Ovfast

import ovfast
from ovfast.quantize.ptq_options import ActivationOptions

pytest.importorskip("nncf")

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"preset": "fast"}, "preset: expected one of performance, mixed, got 'fast'"),
    ({"model_type": "cnn"}, "model_type: expected one of transformer, other"),
    ({"target_device": "tpu"}, "target_device: expected one of any, cpu, gpu, npu, cpu-spr"),
    ({"samples": 0}, "samples: expected a whole number of at least 1, got 0"),
    ({"smooth_quant": 1.5}, "smooth_quant: expected a number from 0 to 1, or -1"),
    ({"smooth_quant": 0.5, "model_type": "other"}, "smooth_quant: expected nothing with"),
    ({"ignored": ("(",)}, "ignored: '\\(' is no regular expression"),
    ({"fast_bias_correction": 1}, "fast_bias_correction: expected True or False"),
    ({"max_drop": 0.01}, "validation: expected data, since max_drop is given"),
    ({"metric": "top1"}, "validation: expected data, since metric is given"),
    ({"max_drop": -1, "validation": [1]}, "max_drop: expected a number of at least 0"),
    ({"max_drop": float("nan"), "validation": [1]}, "max_drop: expected a number of at least 0"),
    ({"drop_type": "relative"}, "drop_type: expected nothing without max_drop"),
    (
        {"drop_type": "relative", "max_drop": 1, "validation": [1]},
        "max_drop: expected below 1 where it is relative",
    ),
    ({"metric": "top5", "validation": [1]}, "metric: expected top1 or module:function"),
    ({"data": "no/such/folder"}, "data: expected a file or folder that exists"),
    ({"data": 7}, "data: expected a path, module:function or inputs"),
    ({"image_size": (0, 5)}, "image_size: expected two whole numbers"),
    ({"image_layout": "CHW"}, "image_layout: expected N, C, H and W"),
    ({"image_scale": 0}, "image_mean, image_scale: the scale divides"),
    ({"sample_tokens": 9, "data": [1]}, "sample_tokens: expected nothing: this is no language"),
    ({"smooth_quant": 0.5, "data": [1]}, "smooth_quant: expected nothing without model_type"),
    ({}, "data: expected inputs to calibrate with"),
    ({"data": [1], "prove": True}, "prove: expected nothing, since this is no language model"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused_before_anything_is_read(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    # The model does not even exist.
    with pytest.raises(ValueError, match=message):
        ovfast.quantize(tmp_path / "none.onnx", tmp_path / "out", "ptq-int8", **options)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unknown option 'ratio' of activation quantization"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out", "ptq-int8", ratio=0.5)


def test_images_are_not_for_language_models() -> None:
    with pytest.raises(ValueError, match="image_bgr: expected nothing for a language model"):
        ActivationOptions(image_bgr=True).check_for(language_model=True)
    ActivationOptions(smooth_quant=0.5, sample_tokens=9).check_for(language_model=True)


def test_what_is_written_down_names_no_folders(tmp_path: Path) -> None:
    (tmp_path / "a.npz").touch()
    options = ActivationOptions(
        data=tmp_path / "a.npz", validation=[{"x": 1}], metric=max, image_mean=(1.0, 2.0, 3.0)
    )
    assert options.given() == {
        "data": "a.npz",
        "validation": "list",
        "metric": "max",
        "image_mean": [1.0, 2.0, 3.0],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "ptq-int8", "--ratio", "0.5"], "--ratio is no option of the recipe ptq-int8"),
        (["--preset", "mixed"], "--preset is no option of the recipe int4-g128"),
        (["--recipe", "ptq-int8", "--max-drop", "0.1"], "--validation: expected data"),
        (["--recipe", "ptq-int8", "--image-mean", "1,x"], "expected numbers with commas"),
        (["--recipe", "ptq-int8", "--image-size", "9"], "expected HEIGHTxWIDTH"),
        (["--max-kl", "0.1", "--preset", "mixed"], "--preset does not go with it"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, tmp_path: Path, ovfast_command: Ovfast
) -> None:
    result = ovfast_command("quantize", "none", "-o", str(tmp_path / "out"), *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
