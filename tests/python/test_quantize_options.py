"""What weight compression refuses before it loads anything, and what it takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import Ovfast

import ovfast
from ovfast.quantize.options import MODES, WeightOptions
from ovfast.quantize.recipes import RECIPES
from ovfast.quantize.search import parse_size, search

REFUSED = [
    ({"mode": "int5"}, "mode: expected one of int8-asym.*, got 'int5'"),
    ({"backup": "int4"}, "backup: expected one of none, int8-asym"),
    ({"sensitivity": "magic", "ratio": 0.5}, "sensitivity: expected one of weight-error"),
    ({"awq": "yes"}, "awq: expected one of data, data-free"),
    ({"group_fallback": "guess"}, "group_fallback: expected one of adjust, ignore, error"),
    ({"gptq": 1}, "gptq: expected True or False"),
    ({"group_size": 8}, "group_size: expected -1 .* at least 16, got 8"),
    ({"group_size": 64.0}, "group_size"),
    ({"ratio": 0}, "ratio: expected a number above 0 and up to 1, got 0"),
    ({"ratio": 1.5}, "ratio: .* got 1.5"),
    ({"ratio": float("nan")}, "ratio: .* got nan"),
    ({"ratio": True}, "ratio"),
    ({"ignored": ["a"]}, "ignored: expected a tuple"),
    ({"ignored": ("(",)}, "ignored: '\\(' is no regular expression"),
    ({"mode": "int8-asym", "group_size": 128}, r"group_size: expected whole rows \(-1\)"),
    ({"mode": "int8-sym", "ratio": 0.5}, "ratio: expected nothing with int8-sym"),
    ({"mode": "int8-sym", "backup": "none"}, "backup: expected nothing with int8-sym"),
    ({"mode": "int8-asym", "all_layers": True}, "all_layers: expected nothing with int8-asym"),
    ({"mode": "int8-asym", "awq": "data-free"}, "awq: expected nothing with int8-asym"),
    ({"mode": "int8-asym", "gptq": True}, "gptq: expected nothing with int8-asym"),
    ({"mode": "int8-asym", "data": "x", "ratio": 1}, "data: expected nothing where"),
    ({"mode": "mxfp4", "group_size": 64}, "group_size: expected 32, the only group of mxfp4"),
    ({"mode": "nvfp4", "group_size": 32}, "group_size: expected 16"),
    ({"mode": "mxfp4", "group_fallback": "adjust"}, "group_fallback: expected ignore or error"),
    ({"mode": "mxfp4", "scale_estimation": True}, "scale_estimation: expected nothing with mxfp4"),
    ({"mode": "fp8", "awq": "data"}, "awq: expected nothing with fp8"),
    ({"mode": "fp4", "lora_correction": True}, "lora_correction: expected nothing with fp4"),
    ({"group_size": -1, "group_fallback": "ignore"}, "group_fallback: expected nothing with whole"),
    ({"gptq": True, "lora_correction": True}, "lora_correction: expected nothing with gptq"),
    ({"lora_rank": 4}, "lora_rank: expected nothing without lora_correction"),
    ({"lora_correction": True, "lora_rank": 0}, "lora_rank: expected .* at least 1, got 0"),
    ({"sensitivity": "hessian"}, "ratio: expected below 1, since sensitivity ranks"),
    ({"samples": 4}, "samples: expected nothing where no option needs data"),
    ({"data": "missing.txt"}, "data: expected nothing where no option needs data"),
    ({"awq": "data", "data": "missing.txt"}, "data: expected a text file"),
    ({"awq": "data", "samples": 0}, "samples: expected a whole number of at least 1"),
    ({"awq": "data", "sample_tokens": 1}, "sample_tokens: .* at least 2, got 1"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_what_does_not_go_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightOptions(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "int8-asym", "ratio": 1},
        {"mode": "int8-sym", "group_size": -1},
        {"mode": "mxfp4", "group_size": 32, "group_fallback": "error"},
        {"mode": "nf4", "awq": "data", "scale_estimation": True, "samples": 1},
        {"gptq": True, "scale_estimation": True},
        {"ratio": 0.8, "sensitivity": "weight-error", "backup": "none"},
        {"ratio": 0.8, "sensitivity": "hessian", "samples": 2},
        {"awq": "data-free", "scale_estimation": True},
    ],
    ids=str,
)
def test_what_goes_together_is_taken(options: dict[str, object]) -> None:
    assert WeightOptions(**options).given() == {"mode": "int4-sym", **options}


def test_nothing_is_loaded_before_options_are_judged(tmp_path: Path) -> None:
    """The source does not even exist."""
    with pytest.raises(ValueError, match="lora_correction"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out", gptq=True, lora_correction=True)
    with pytest.raises(ValueError, match="recipe: expected one of int8, .* got 'int9'"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out", "int9")
    with pytest.raises(TypeError, match="unknown option 'grop_size'.* known are mode, group_size"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out", grop_size=64)
    with pytest.raises(ValueError, match="a search needs a bound"):
        search(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="max_kl is -1, expected a number of at least 0"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out", prove={"max_kl": -1})
    with pytest.raises(TypeError, match="prove: expected Thresholds, a mapping or bool, got str"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out", prove="yes")
    with pytest.raises(ovfast.ModelError, match="does not exist"):
        ovfast.quantize(tmp_path / "none", tmp_path / "out")


def test_every_mode_and_choice_is_one_of_nncf() -> None:
    nncf = pytest.importorskip("nncf")
    from ovfast.quantize.options import BACKUPS, METRICS

    known = {mode.value for mode in nncf.CompressWeightsMode}
    # Two take a codebook of their own.
    assert known - {mode.nncf for mode in MODES.values()} == {"codebook", "adaptive_codebook"}
    assert {backup.value for backup in nncf.BackupMode} == set(BACKUPS.values())
    assert {metric.value for metric in nncf.SensitivityMetric} == set(METRICS.values())


@pytest.mark.parametrize(
    ("text", "size"),
    [("350MB", 350_000_000), ("1.5 GiB", 1_610_612_736), (1000, 1000), ("2kb", 2000), ("7", 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "much", "1 TB", "-3MB", "0", 0, "nanMB"])
def test_bad_sizes(text: str | int) -> None:
    with pytest.raises(ValueError, match="target_size: expected a size such as 350MB"):
        parse_size(text)


def test_recipes_are_listed(ovfast_command: Ovfast) -> None:
    result = ovfast_command("quantize", "--list-recipes")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "int9"], "--recipe: expected one of int8"),
        (["--group-size", "8"], "--group-size: expected -1"),
        (["--gptq", "--lora-correction"], "--lora-correction: expected nothing with gptq"),
        (["--lora-rank", "3"], "--lora-rank: expected nothing without"),
        (["--samples", "4"], "--samples: expected nothing where"),
        (["--max-kl", "0.1", "--recipe", "int8"], "--recipe does not go with it"),
        (["--max-kl", "0.1", "--gptq"], "--gptq does not go with it"),
        (["--target-size", "1MB", "--prove"], "--prove does not go with it"),
        (["--target-size", "tiny"], "--target-size: expected a size"),
        (["--min-agreement", "0.9"], "--min-agreement is a threshold of a proof: give --prove"),
        (["--positions", "9"], "--positions is for searches"),
        (["--mode", "int8-sym", "--ratio", "0.5"], "--ratio: expected nothing with int8-sym"),
        (
            ["--recipe", "int4-g64", "--mode", "int8-sym"],
            "the only group of int8-sym, got 64, which the recipe int4-g64 sets",
        ),
        (["--prove", "--max-kl", "-1"], "--max-kl is -1.0, expected a number of at least 0"),
        (["--prove", "--min-agreement", "90"], "--min-agreement is 90.0, expected a share"),
        (["--max-kl", "0"], "--max-kl: expected a number above 0, got 0.0"),
        (["--max-kl", "inf"], "--max-kl: expected a number above 0, got inf"),
        (["--max-kl", "1", "--positions", "0"], "--positions: expected at least 1, got 0"),
    ],
    ids=str,
)
def test_wrong_usage(ovfast_command: Ovfast, arguments: list[str], message: str) -> None:
    result = ovfast_command("quantize", "none", "-o", "out", *arguments)
    assert result.code == 2
    assert re.search(re.escape(message), result.err), result.err
    assert result.out == ""


def test_nncf_reports_nothing_over_the_network() -> None:
    pytest.importorskip("nncf")
    # In a process of its own: NNCF keeps quiet under pytest anyway.
    program = (
        "import ovfast.quantize; from nncf.telemetry.wrapper import NNCFTelemetry, telemetry; "
        "print(isinstance(telemetry, NNCFTelemetry))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NNCF_CI"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.strip() == "False"
