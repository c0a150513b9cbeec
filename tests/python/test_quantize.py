"""Weight compression of whole directories: numbers, formats, refusals, and what is left behind."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from cli_harness import Ovfast
from conftest import TinyModel
from test_export_faults import content, small_disk

import ovfast
from ovfast import Error, ModelError
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.metrics import kl_divergence
from ovfast.evaluate.options import PARTS, Thresholds
from ovfast.export.manifest import read_manifest
from ovfast.model_dir import ModelDir
from ovfast.quantize import QuantizeResult, halves
from ovfast.quantize.calibration import read_calibration
from ovfast.quantize.expand import constant_of, decompress, weights_of
from ovfast.quantize.options import WeightOptions
from ovfast.quantize.recipes import RECIPES
from ovfast.quantize.source import read_stock

pytest.importorskip("nncf")

FEW = {"samples": 4, "sample_tokens": 64}
IDS = list(range(5, 65))
RECIPE_NAMES = [name for name, recipe in RECIPES.items() if recipe.kind == "weights"]
# Formats of the 14 layers of the tiny qwen2 and of its embedding and lm_head. Layers have 128
# columns, those of ffn_down 256.
FORMATS = {
    "int8": {"int8 per row": 16},
    "int8-sym": {"int8 per row": 16},
    "int4-g64": {"int4 group 64": 14, "int8 per row": 2},
    "int4-asym-g64": {"int4 group 64": 14, "int8 per row": 2},
    "int4-g32": {"int4 group 32": 14, "int8 per row": 2},
    "int4-asym-g32": {"int4 group 32": 14, "int8 per row": 2},
    "int4-all": {"int4 group 128": 2, "int4 per row": 14},
    "nf4": {"nf4 group 128": 2, "nf4 per row": 12, "int8 per row": 2},
    "mxfp4": {"f4e2m1 group 32": 14, "f8e4m3 group 32": 2},
    "fp8": {"f8e4m3 per row": 14, "f8e4m3 group 128": 2},
}
INT4 = {"int4 group 128": 2, "int4 per row": 12, "int8 per row": 2}


def plain_options(recipe: str) -> dict[str, Any]:
    options = RECIPES[recipe].options
    assert options is not None
    return FEW if options.needs_data else {}


@pytest.fixture(scope="module")
def source(tiny_model: Callable[[str, str], TinyModel], tmp_path_factory: Any) -> Path:
    """A stock directory with f16 weights."""
    folder = tmp_path_factory.mktemp("source") / "stock"
    ovfast.export(tiny_model("qwen2", "F16")[0], folder, progress=False, packed=False)
    return folder


@pytest.fixture(scope="module")
def results(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], QuantizeResult]:
    """Each recipe in standard operations, once."""
    folder = tmp_path_factory.mktemp("results")

    @cache
    def make(recipe: str) -> QuantizeResult:
        options = plain_options(recipe)
        return ovfast.quantize(
            source, folder / recipe, recipe, packed=False, progress=False, **options
        )

    return make


def by_layer(model: Any) -> dict[str, Any]:
    """Name of the layer -> (its weight as numbers, the node that gives it)."""
    found = {}
    for weight in weights_of(model):
        constant = constant_of(weight)
        whole = constant is not None and constant.get_element_type().get_bitwidth() > 8
        values = constant.data if whole else decompress(weight.output)
        for taker in weight.takers:
            found[taker.get_node().get_friendly_name()] = (values, weight.output.get_node())
    return found


def scale_of(node: Any, shape: tuple[int, ...]) -> np.ndarray:
    """|scale| of each weight."""
    while node.get_type_name() != "Multiply":
        node = node.input_value(0).get_node()
    scale = node.input_value(1).get_node()
    while scale.get_type_name() == "Convert":
        scale = scale.input_value(0).get_node()
    values = np.abs(scale.get_data(dtype=np.float32)).reshape(shape[0], -1)
    return np.repeat(values, shape[1] // values.shape[1], axis=1)


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_recipe(recipe: str, source: Path, results: Callable[[str], QuantizeResult]) -> None:
    result = results(recipe)
    assert (result.recipe, result.reused, result.packed) == (recipe, False, False)
    if recipe in ("int4-mixed", "int4-mixed-data"):
        assert sum(result.layers.values()) == 16
        assert 2 < result.layers["int8 per row"] < 8
    elif recipe == "int4-lora":  # two matrices in 8 bits for each corrected layer
        assert {"int4 per row", "int4 group 128", "int8 per row"} <= set(result.layers)
        assert result.layers["int8 per row"] > 2
    else:
        assert result.layers == FORMATS.get(recipe, INT4)
    assert ModelDir.check(result.model_dir).weights_bytes == result.weights_bytes
    few = any("only 256 tokens of calibration text" in note for note in result.notes)
    assert few == bool(plain_options(recipe))

    manifest = read_manifest(result.model_dir)
    assert manifest is not None
    assert [one["name"] for one in manifest["steps"]] == ["export", "quantize"]
    step = manifest["steps"][-1]
    assert step["options"]["recipe"] == recipe
    assert set(step["tools"]) == {"ovfast", "openvino", "nncf"}

    expected = PositionLogits(source, exact=True)(IDS)
    got = PositionLogits(result.model_dir, exact=True)(IDS)
    kl = kl_divergence(expected, got).mean()
    # Random weights: measured below 1e-3 for 8 bits, 7e-3 for 8-bit floats, 0.11 for 4 bits.
    assert kl < {"int8": 2e-3, "int8-sym": 2e-3, "fp8": 2e-2}.get(recipe, 0.2)


@pytest.mark.parametrize(
    "recipe", ["int8", "int8-sym", "int4-g128", "int4-g64", "int4-asym-g32", "int4-all"]
)
def test_rounded_to_the_nearest(
    recipe: str, source: Path, results: Callable[[str], QuantizeResult]
) -> None:
    """Every weight is within half a step of the original, in the file that was written."""
    before_model = read_stock(source)
    after_model = ov.Core().read_model(results(recipe).model_dir / "openvino_model.xml")
    before, after = by_layer(before_model), by_layer(after_model)
    assert set(before) == set(after)
    assert len(before) == 16
    for name, (values, _) in before.items():
        rounded, node = after[name]
        scale = scale_of(node, values.shape)
        error = np.abs(rounded.astype(np.float32) - values.astype(np.float32))
        # Symmetric codes reach from -8 to 7: what is nearer to +8 becomes 7.
        clipped = np.abs(values) > 7.5 * scale if "asym" not in recipe else np.False_
        steps = np.where(clipped, 1.0, 0.5) if recipe != "int8" else 0.5
        # Scales and products are rounded to f16.
        assert (error <= steps * scale * 1.01 + np.abs(values) * 2**-10).all(), name


def test_packed_directory_and_packed_result(
    source: Path,
    results: Callable[[str], QuantizeResult],
    tiny_model_dirs: dict[str, Path],
    tmp_path: Path,
) -> None:
    packed = ovfast.quantize(tiny_model_dirs["qwen2"], tmp_path / "q", "int4-g64", progress=False)
    assert packed.packed
    assert packed.layers == {"int4 group 64": 14, "int8 per row": 2}
    manifest = read_manifest(packed.model_dir)
    assert manifest is not None
    assert [one["name"] for one in manifest["steps"]] == ["export", "quantize", "pack"]
    # The very numbers that the stock directory gives.
    expected = PositionLogits(results("int4-g64").model_dir, exact=True)(IDS)
    got = PositionLogits(packed.model_dir, exact=True)(IDS)
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())
    with ovfast.LLM(packed.model_dir, progress=False) as llm:
        assert llm.info.packed
        assert len(llm.generate("a", max_new_tokens=4, ignore_eos=True).token_ids) == 4


def test_format_that_does_not_pack(source: Path, tmp_path: Path) -> None:
    result = ovfast.quantize(source, tmp_path / "q", "mxfp4", progress=False)
    assert not result.packed
    assert any("keeps OpenVINO's operations" in note for note in result.notes)
    assert not (tmp_path / "q" / "stock").exists()


def test_groups_that_do_not_fit(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "q"

    def run(**options: Any) -> QuantizeResult:
        return ovfast.quantize(source, out, packed=False, progress=False, force=True, **options)

    adjusted = run(group_size=256)
    assert adjusted.layers == {"int4 per row": 14, "int8 per row": 2}
    (note,) = adjusted.notes
    assert "group_size 256 does not divide the columns of MatMul" in note
    assert "and 9 more: groups of 128 there" in note
    ignored = run(group_size=256, group_fallback="ignore")
    assert ignored.layers == {"int4 per row": 2, "int8 per row": 2}
    assert "kept as they are" in ignored.notes[0]
    with pytest.raises(ValueError, match="group_size: expected a divisor .*256.*128"):
        run(group_size=256, group_fallback="error")
    with pytest.raises(ValueError, match="group_size: expected a divisor .*48.*128, 256"):
        run(group_size=48)


def test_ignored_layers(source: Path, tmp_path: Path) -> None:
    result = ovfast.quantize(
        source, tmp_path / "q", packed=False, progress=False, ignored=(".*ffn_out", ".*Qcur")
    )
    assert sum(result.layers.values()) == 16 - 4
    with pytest.raises(ValueError, match="ignored: .*'nothing', which matches none; layers are"):
        ovfast.quantize(source, tmp_path / "p", progress=False, ignored=("nothing",))
    assert not (tmp_path / "p").exists()


def test_quantized_already(
    tiny_model: Callable[[str, str], TinyModel],
    results: Callable[[str], QuantizeResult],
    tmp_path: Path,
) -> None:
    again = results("int4-g64").model_dir
    state = r"14 layers int4 group 64, 2 layers int8 per row \(NNCF\)"
    with pytest.raises(ValueError, match=f"is quantized already: {state}.*--force"):
        ovfast.quantize(again, tmp_path / "q", progress=False)
    packed = tiny_model("qwen2", "Q8_0")[1]
    with pytest.raises(ValueError, match=r"is quantized already: 16 layers int8 group 32 \(GGUF\)"):
        ovfast.quantize(packed, tmp_path / "q", progress=False)
    assert list(tmp_path.iterdir()) == []
    result = ovfast.quantize(packed, tmp_path / "q", force=True, progress=False)
    assert any("quantized before: 16 layers int8" in note for note in result.notes)
    assert result.layers == INT4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number(value: float, source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    model = ov.Core().read_model(source / "openvino_model.xml")
    weight = next(one for one in weights_of(model) if "ffn_up" in one.name)
    constant = constant_of(weight)
    values = np.array(constant.data)
    values[3, 7] = value
    other = ov.opset13.constant(values)
    other.set_friendly_name(constant.get_friendly_name())
    for taker in constant.output(0).get_target_inputs():
        taker.replace_source_output(other.output(0))
    ov.save_model(model, broken / "openvino_model.xml", compress_to_fp16=False)
    with pytest.raises(ModelError, match=r"ffn_up.* holds a NaN or an infinity at \[3, 7\]"):
        ovfast.quantize(broken, tmp_path / "q", progress=False)
    assert content(tmp_path) == ["broken"]


def test_done_once(source: Path, tmp_path: Path) -> None:
    def run(**options: Any) -> QuantizeResult:
        return ovfast.quantize(source, tmp_path / "q", "int8", progress=False, **options)

    assert not run().reused
    written = (tmp_path / "q" / "openvino_model.bin").stat().st_mtime_ns
    assert run().reused
    assert (tmp_path / "q" / "openvino_model.bin").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="holds another model"):
        run(packed=False)
    with pytest.raises(ValueError, match="is the source"):
        ovfast.quantize(tmp_path / "q", tmp_path / "q")
    with pytest.raises(ValueError, match="lies inside"):
        ovfast.quantize(source, source / "q")


def test_interrupted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("openvino.save_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ovfast.quantize(source, tmp_path / "deep" / "q", progress=False)
    assert content(tmp_path) == []


def test_full_disk(source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200_000) as disk:
        with pytest.raises(Error, match="cannot write"):
            ovfast.quantize(source, disk / "q", progress=False)
        assert content(disk) == []


def test_no_space_for_expanded_weights(
    tiny_model: Callable[[str, str], TinyModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(halves, "_LEAST_BYTES", 0)
    monkeypatch.setattr(halves.os, "posix_fallocate", full)
    with pytest.raises(Error, match="cannot hold .* MB of weights in .*No space left"):
        ovfast.quantize(tiny_model("qwen2", "Q8_0")[1], tmp_path / "q", force=True, progress=False)
    assert content(tmp_path) == []


def test_calibration_texts(source: Path, tmp_path: Path) -> None:
    model = ModelDir.check(source)
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    (folder / "b.jsonl").write_text('{"text": "x1y2z3 x1y2z3 x1y2z3 x1y2z3"}\n{"text": "no"}\n')

    def read(**options: Any) -> Any:
        return read_calibration(model, WeightOptions(awq="data", **options))

    mine = read(data=str(folder), samples=3, sample_tokens=64)
    # The first piece of each text comes before the second one of any; "no" is too short.
    assert len(mine.texts) == 3
    assert len(mine.texts[0]) == len(mine.texts[2]) == 64
    assert 16 <= len(mine.texts[1]) < 64
    assert mine.description == read(data=str(folder), samples=3, sample_tokens=64).description
    assert mine.description["sha256"] != read(data=str(folder), samples=2).description["sha256"]
    assert any("only" in note and "tokens of calibration text" in note for note in mine.notes)
    (sample, *_) = mine.inputs({"input_ids", "attention_mask", "beam_idx"})
    assert sample["input_ids"].tolist() == [mine.texts[0]]
    assert sample["attention_mask"].shape == (1, 64)
    with pytest.raises(ModelError, match="inputs that calibration knows nothing of"):
        mine.inputs({"pixels"})

    (tmp_path / "short.txt").write_text("no")
    with pytest.raises(ValueError, match="data: expected a text of at least 16 tokens"):
        read(data=str(tmp_path / "short.txt"))
    (tmp_path / "bad.jsonl").write_text('{"text": 3}\n')
    with pytest.raises(ValueError, match="line 1: 'text' must be text, got int"):
        read(data=str(tmp_path / "bad.jsonl"))
    (tmp_path / "empty.txt").write_text(" ")
    with pytest.raises(ValueError, match="holds no text"):
        read(data=str(tmp_path / "empty.txt"))


def test_proof(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def prove(model: Path, against: Path, thresholds: Any, **_: Any) -> dict[str, Any]:
        ModelDir.check(model)
        seen.append((against, thresholds))
        failures = ["KL is 0.2, expected at most 0.1"] if thresholds else []
        return {"passed": not failures, "failures": failures, "kl_mean": 0.2}

    monkeypatch.setattr("ovfast.evaluate.prove", prove)
    with pytest.raises(Error, match="the quantized model fails: KL is 0.2.*Nothing was written"):
        ovfast.quantize(source, tmp_path / "q", "int8", prove={"max_kl": 0.1}, progress=False)
    assert content(tmp_path) == []
    result = ovfast.quantize(source, tmp_path / "q", "int8", prove=True, progress=False)
    assert result.quality == {"passed": True, "failures": [], "kl_mean": 0.2}
    assert seen == [(source, Thresholds(max_kl=0.1)), (source, Thresholds())]


def test_activations_are_for_another_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("ovfast.quantize.ptq")
    module.quantize_activations = lambda *paths, **options: (paths, options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ovfast.quantize.ptq", module)
    paths, options = ovfast.quantize("a", tmp_path, "ptq-int8", max_drop=0.1)
    assert paths == (Path("a"), tmp_path)
    assert options == {"packed": True, "force": False, "progress": True, "max_drop": 0.1}


def test_command(source: Path, tmp_path: Path, ovfast_command: Ovfast) -> None:
    arguments = ["quantize", str(source), "-o", str(tmp_path / "q"), "--recipe", "int8"]
    first = ovfast_command(*arguments, "--json")
    assert first.code == 0, first.err
    answer = json.loads(first.out)
    assert answer["layers"] == {"int8 per row": 16}
    assert answer["packed"]
    # NNCF's table, which it would print to stdout.
    assert "int8_asym, per-channel" in first.err
    second = ovfast_command(*arguments, "--no-progress")
    assert second.code == 0
    assert "holds this result already" in second.out
    assert second.err == ""
    third = ovfast_command("quantize", str(tmp_path / "q"), "-o", str(tmp_path / "p"))
    assert third.code == 1
    assert "is quantized already: 16 layers int8 per row (NNCF)" in third.err


def test_without_nncf(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovfast.quantize.directory.find_spec", lambda name: None)
    with pytest.raises(Error, match=r"nncf is missing: pip install 'ovfast\[quantize\]'"):
        ovfast.quantize(source, tmp_path / "q")


@pytest.mark.real_model
@pytest.mark.slow
def test_real_model_in_8_bits(real_model_dir: Path, tmp_path: Path) -> None:
    result = ovfast.quantize(real_model_dir, tmp_path / "q", "int8", force=True, progress=False)
    assert set(result.layers) == {"int8 per row"}
    text = ovfast.evaluate(
        *(result.model_dir, real_model_dir),
        positions=200,
        exact=True,
        without=PARTS,
        progress=False,
    ).text
    assert text is not None
    assert 0 < text.kl_mean < 0.005
