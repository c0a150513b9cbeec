"""Post-training quantization: numbers, accuracy, states, language models, what is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from cli_harness import Ovfast
from conftest import TinyModel
from convert_models import run_onnx, write_onnx_convnet
from ptq_models import adder, classifier, digits, write_classifier

import ovfast
from ovfast import Error, ModelError
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.metrics import kl_divergence
from ovfast.export.manifest import read_manifest
from ovfast.quantize.capture import capture
from ovfast.quantize.measure import Comparison, Run
from ovfast.quantize.ptq_file import MeasuredResult

pytest.importorskip("nncf")
pytest.importorskip("sklearn")

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_classifier(tmp_path_factory.mktemp("classifier"))


def quantize(source: Path, out: Path, **options: Any) -> MeasuredResult:
    result = ovfast.quantize(source, out, "ptq-int8", progress=False, **options)
    assert isinstance(result, MeasuredResult)
    return result


def fakes(model: Any) -> dict[str, Any]:
    """Name of what is quantized -> its FakeQuantize."""
    return {
        node.input_value(0).get_node().get_friendly_name(): node
        for node in model.get_ops()
        if node.get_type_name() == "FakeQuantize"
    }


def upper(fake: Any) -> float:
    return float(fake.input_value(2).get_node().get_data().max())


@pytest.fixture(scope="module")
def result(paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MeasuredResult:
    return quantize(
        paths["model.xml"],
        tmp_path_factory.mktemp("result") / "q",
        data=paths["inputs.npz"],
        validation=paths["labelled.npz"],
    )


def test_ranges_are_those_of_the_inputs(result: MeasuredResult) -> None:
    found = fakes(ov.Core().read_model(result.model_dir / "openvino_model.xml"))
    inputs = digits()[0][:120]
    model = classifier()
    relu = next(node for node in model.get_ops() if node.get_type_name() == "Relu")
    until_relu = ov.Model([relu.output(0)], model.get_parameters())
    seen = ov.compile_model(until_relu, "CPU", EXACT)(inputs)[0]
    uppers = sorted(upper(fake) for fake in found.values())
    # NNCF's default: the mean of the largest numbers of all samples.
    expected = sorted(float(x.reshape(120, -1).max(1).mean()) for x in (inputs, seen))
    np.testing.assert_allclose(uppers, expected, rtol=1e-4)


def test_weights_are_the_nearest_codes(result: MeasuredResult) -> None:
    sources = [classifier(), ov.Core().read_model(result.model_dir / "openvino_model.xml")]
    plain, quantized = (
        next(node for node in model.get_ops() if node.get_type_name() == "Convolution")
        for model in sources
    )
    weight = plain.input_value(1).get_node().get_data()
    scaled = quantized.input_value(1).get_node()
    assert scaled.get_type_name() == "Multiply"
    codes = scaled.input_value(0).get_node().input_value(0).get_node()
    scale = scaled.input_value(1).get_node().get_data()
    assert codes.get_element_type() == ov.Type.i8
    # Symmetric, one scale a channel. NNCF leaves a bit of the first layer free, for processors
    # whose instructions would overflow.
    np.testing.assert_allclose(
        scale.ravel(), np.abs(weight).reshape(len(weight), -1).max(1) / 63.5, rtol=1e-5
    )
    assert np.abs(codes.get_data() * scale - weight).max() <= 0.501 * scale.max()


def test_accuracy_stays_and_is_what_is_told(paths: dict[str, Path], result: MeasuredResult) -> None:
    _, _, images, labels = digits()
    assert result.comparison is not None
    runs = result.comparison.runs
    for xml, run in (
        (paths["model.xml"], runs[0]),
        (result.model_dir / "openvino_model.xml", runs[-1]),
    ):
        answer = ov.compile_model(xml, "CPU", EXACT)(images)[0]
        assert run.metric == pytest.approx((answer.argmax(1) == labels).mean())
        files = [xml, xml.with_suffix(".bin")]
        assert run.bytes == sum(file.stat().st_size for file in files)
    assert runs[0].metric is not None and runs[-1].metric is not None
    # Five of 497 images, with room.
    assert runs[0].metric > 0.95
    assert runs[-1].metric > runs[0].metric - 0.01
    assert 0.001 < result.comparison.error < 0.05
    assert (runs[0].name, runs[0].precision, runs[-1].name) == ("source", "f32", "quantized")
    assert result.layers == {"int8 Convolution": 1, "int8 MatMul": 1}
    assert (result.weights_bytes, result.packed) == (
        (result.model_dir / "openvino_model.bin").stat().st_size,
        False,
    )


def test_manifest(paths: dict[str, Path], result: MeasuredResult) -> None:
    manifest = read_manifest(result.model_dir)
    assert manifest is not None
    assert manifest["source"]["file"] == "model.xml"
    (step,) = manifest["steps"]
    assert step["name"] == "quantize"
    assert step["options"]["recipe"] == "ptq-int8"
    assert step["options"]["data"] == "inputs.npz"
    assert step["options"]["calibration"]["samples"] == 120
    assert step["options"]["measured"]["metric"] == "top1"
    assert str(paths["model.xml"].parent) not in json.dumps(manifest)


def test_what_is_quantized_already(
    paths: dict[str, Path], result: MeasuredResult, tmp_path: Path
) -> None:
    options = {"data": paths["inputs.npz"], "validation": paths["labelled.npz"]}
    with pytest.raises(ValueError, match=r"is quantized already: 2 quantized activations"):
        quantize(result.model_dir, tmp_path / "q", **options)
    assert list(tmp_path.iterdir()) == []
    again = quantize(result.model_dir, tmp_path / "q.xml", force=True, **options)
    assert again.notes[0].startswith("made of a model that was quantized before: 2 quantized")
    assert again.layers == result.layers
    assert again.comparison is not None and result.comparison is not None
    assert again.comparison.runs[-1].metric == pytest.approx(
        result.comparison.runs[-1].metric, abs=0.01
    )


def test_ignored_layers_and_options_arrive(paths: dict[str, Path], tmp_path: Path) -> None:
    common = {"data": paths["inputs.npz"], "compare": False}
    one = quantize(paths["model.xml"], tmp_path / "a", ignored=("read.*",), **common)
    assert (one.layers, one.comparison) == ({"int8 Convolution": 1}, None)
    with pytest.raises(ValueError, match="ignored: .*'none', which matches none; they are called"):
        quantize(paths["model.xml"], tmp_path / "b", ignored=("none",), **common)
    options = {"preset": "mixed", "target_device": "npu", "fast_bias_correction": False}
    two = quantize(paths["model.xml"], tmp_path / "c", samples=10, **options, **common)
    assert two.notes == ["only 10 rows to calibrate with: some 300 are the rule"]
    graph = ov.Core().read_model(two.model_dir / "openvino_model.xml")
    told = {
        name: graph.get_rt_info(["nncf", "quantization", name]).astype(str)
        for name in ("preset", "target_device", "subset_size", "fast_bias_correction")
    }
    assert told == {
        "preset": "mixed",
        "target_device": "NPU",
        "subset_size": "10",
        "fast_bias_correction": "False",
    }
    with pytest.raises(ValueError, match="data: expected at least 8 rows to calibrate with, got 7"):
        quantize(paths["model.xml"], tmp_path / "d", samples=7, **common)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def nearness(compiled_model: Any, data: Iterable[Any]) -> float:
    """0 for the very logits of the source, less for others."""
    worst = 0.0
    for item in data:
        worst = max(worst, float(np.abs(compiled_model(item["x"])[0] - item["y"]).max()))
    return -worst


@pytest.fixture(scope="module")
def reference() -> list[Any]:
    images = digits()[2][:32]
    logits = ov.compile_model(classifier(), "CPU", EXACT)(images)[0]
    return [{"x": images[i : i + 1], "y": logits[i : i + 1]} for i in range(len(images))]


def test_max_drop_gives_layers_back(
    paths: dict[str, Path], reference: list[Any], tmp_path: Path
) -> None:
    options = {"data": paths["inputs.npz"], "validation": reference, "metric": nearness}
    free = quantize(paths["model.xml"], tmp_path / "free", **options)
    assert free.comparison is not None
    lost = -free.comparison.runs[-1].metric
    held = quantize(paths["model.xml"], tmp_path / "held", max_drop=lost / 2, **options)
    assert held.comparison is not None
    assert sum(held.layers.values()) < sum(free.layers.values())
    assert held.comparison.runs[0].metric - held.comparison.runs[-1].metric <= lost / 2
    assert held.comparison.metric == "nearness"


def test_a_drop_that_cannot_be_held_writes_nothing(
    paths: dict[str, Path], reference: list[Any], tmp_path: Path
) -> None:
    calls = []

    def fading(compiled_model: Any, data: Iterable[Any]) -> float:
        calls.append(1)
        return 1.0 if len(calls) < 3 else 0.5

    options = {"data": paths["inputs.npz"], "validation": reference, "max_drop": 0.1}
    message = "fading fell from 1.0000 to 0.5000: expected a relative drop of at most 0.1"
    with pytest.raises(Error, match=message):
        quantize(paths["model.xml"], tmp_path / "q", metric=fading, drop_type="relative", **options)
    for metric, message in (
        (lambda model, data: 1 / 0, "the metric .* failed: ZeroDivisionError"),
        (lambda model, data: float("nan"), "gave nan: expected a finite number"),
        (lambda model, data: "good", "failed: ValueError"),
    ):
        with pytest.raises(Error, match=message):
            quantize(paths["model.xml"], tmp_path / "q", metric=metric, **options)
    with pytest.raises(ValueError, match="top1 needs dictionaries of inputs and 'labels'"):
        quantize(paths["model.xml"], tmp_path / "q", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_of_a_module(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ovfast_command: Ovfast
) -> None:
    (tmp_path / "my_ptq_metric.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    return [np.zeros((1, 1, 8, 8), np.float32)] * 3\n"
        "def measure(compiled_model, data):\n"
        "    return sum(compiled_model(x)[0].size for x in data)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["quantize", str(paths["model.xml"]), "-o", "q", "--recipe", "ptq-int8"]
    command += ["--data", str(paths["inputs.npz"]), "--no-progress"]
    metric = ["--metric", "my_ptq_metric:measure", "--validation", "my_ptq_metric:data"]
    got = ovfast_command(*command, *metric, "--json")
    assert got.code == 0, got.err
    comparison = json.loads(got.out)["comparison"]
    assert comparison["metric"] == "my_ptq_metric:measure"
    assert [comparison["runs"][index]["metric"] for index in (0, -1)] == [30, 30]
    assert comparison["speedup"] > 0
    got = ovfast_command(*command)
    assert got.code == 1
    assert "'q' holds another model" in got.err
    got = ovfast_command(*command, "--force", "--validation", str(paths["labelled.npz"]))
    assert got.code == 0, got.err
    first, head, source, *_ = got.out.splitlines()
    assert first.startswith("q: ")
    assert "1 layers int8 Convolution" in first
    assert head.split() == ["floats", "size", "time", "speed", "top1"]
    assert source.split()[:2] == ["source", "f32"]
    assert "Try: ovfast run" not in got.out


def test_states_are_kept_and_reset_where_they_were(tmp_path: Path) -> None:
    xml = tmp_path / "adder.xml"
    ov.save_model(adder(), xml, compress_to_fp16=False)
    request = ov.compile_model(xml, "CPU").create_infer_request()
    ones = np.ones((1, 4), np.float32)
    with capture(request) as inputs:
        for _ in range(2):
            request.reset_state()
            for _ in range(6):
                request.infer(ones)
    for out, data in (("a", inputs), ("b", inputs.save(tmp_path / "inputs"))):
        result = quantize(xml, tmp_path / out, data=data)
        graph = ov.Core().read_model(result.model_dir / "openvino_model.xml")
        # Sums of 1 to 6, twice; 1 to 12 if it were never reset, 1 if it always were.
        assert max(upper(fake) for fake in fakes(graph).values()) == pytest.approx(3.5, rel=1e-4)


def test_a_source_with_nan_or_in_another_form(paths: dict[str, Path], tmp_path: Path) -> None:
    model = classifier()
    readout = next(node for node in model.get_ops() if node.get_type_name() == "Convolution")
    constant = readout.input_value(1).get_node()
    values = np.array(constant.get_data())
    values[3, 0, 1, 1] = np.nan
    broken = ov.op.Constant(values)
    broken.set_friendly_name("kernel")
    readout.input(1).replace_source_output(broken.output(0))
    ov.save_model(model, tmp_path / "nan.xml", compress_to_fp16=False)
    with pytest.raises(ModelError, match=r"the weight 'kernel', read by .* at \[3, 0, 1, 1\]"):
        quantize(tmp_path / "nan.xml", tmp_path / "q", data=paths["inputs.npz"])
    with pytest.raises(ModelError, match="does not exist"):
        quantize(tmp_path / "none.onnx", tmp_path / "q", data=paths["inputs.npz"])
    with pytest.raises(ValueError, match="is the source"):
        quantize(tmp_path / "nan.xml", tmp_path / "nan.xml", data=paths["inputs.npz"], force=True)


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    source = write_onnx_convnet(tmp_path / "net.onnx", 16, 16)
    images = np.random.default_rng(5).random((40, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    result = quantize(source, tmp_path / "q.xml", data=tmp_path / "images.npy")
    assert result.layers == {"int8 Convolution": 1, "int8 MatMul": 1}
    expected = run_onnx(source, image=images)[0]
    answer = ov.compile_model(tmp_path / "q.xml", "CPU", EXACT)(images)[0]
    error = np.sqrt(np.square(answer - expected).sum() / np.square(expected).sum())
    # Weights of 7 bits (the first layer) and activations of 8 are off by some 0.5 % of the largest;
    # random weights cancel to logits a few times smaller than that.
    assert 1e-4 < error < 0.1
    assert result.comparison is not None
    assert result.comparison.error == pytest.approx(error, rel=0.3)  # of 32 of the 40
    assert result.source_bytes == source.stat().st_size


def test_table() -> None:
    from ovfast.cli.quantize_ptq import format_comparison

    runs = [
        Run("source", "f32", 4_000_000, 20.0, 0.97),
        Run("source", "bf16", 4_000_000, 16.0, None),
        Run("quantized", "bf16", 1_000_000, 8.0, 0.96),
    ]
    assert format_comparison(Comparison(runs, "top1", 0.0123, 50)).splitlines() == [
        "           floats     size   time  speed    top1",
        "source     f32     4.00 MB  20 ms  1.00x  0.9700",
        "source     bf16    4.00 MB  16 ms  1.25x",
        "quantized  bf16    1.00 MB   8 ms  2.50x  0.9600",
        "Time: median of 50 inferences each, in turn. Outputs differ by 1.2% (root mean square).",
    ]


@pytest.fixture(scope="module")
def language_model(tiny_model: Callable[[str, str], TinyModel], tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("language") / "stock"
    ovfast.export(tiny_model("qwen2", "F16")[0], folder, progress=False, packed=False)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_language_model(
    packed: bool, language_model: Path, tiny_model: Callable[[str, str], TinyModel], tmp_path: Path
) -> None:
    source = tiny_model("qwen2", "F16")[1] if packed else language_model
    few = {"samples": 8, "sample_tokens": 64, "packed": packed, "progress": False}
    result = ovfast.quantize(source, tmp_path / "q", "ptq-int8", **few)
    assert result.recipe == "ptq-int8"
    assert result.layers["with quantized activations (FakeQuantize)"] > 8
    assert result.layers["int8 per row"] == 16
    ids = list(range(5, 65))
    reference = PositionLogits(language_model, exact=True)(ids)
    logits = PositionLogits(tmp_path / "q", exact=True)(ids)
    # Random weights answer almost evenly: 0.012 was seen, 0.5 for another model.
    assert 0 < kl_divergence(reference, logits).mean() < 0.05
    with ovfast.LLM(tmp_path / "q") as llm:
        assert llm.generate("Hello", max_new_tokens=4, ignore_eos=True).token_ids
    assert ovfast.quantize(source, tmp_path / "q", "ptq-int8", **few).reused
    with pytest.raises(ValueError, match="is quantized already: .*FakeQuantize"):
        ovfast.quantize(tmp_path / "q", tmp_path / "q2", "ptq-int8", **few)
    again = ovfast.quantize(tmp_path / "q", tmp_path / "q2", "ptq-int8", force=True, **few)
    assert again.layers == result.layers


def test_language_model_from_what_it_was_fed(language_model: Path, tmp_path: Path) -> None:
    logits = PositionLogits(language_model, exact=True)
    with capture(logits._request) as inputs:
        for first in (5, 9, 20):
            list(logits.chunks(list(range(first, first + 40)), rows=10))
    assert [item["nncf_reset_state"] for item in inputs] == [True, False, False, False] * 3
    result = ovfast.quantize(
        language_model, tmp_path / "q", "ptq-int8", data=inputs, packed=False, progress=False
    )
    assert result.notes == ["only 12 rows to calibrate with: some 300 are the rule"]
    quantized = PositionLogits(tmp_path / "q", exact=True)
    ids = list(range(5, 65))
    assert kl_divergence(logits(ids), quantized(ids)).mean() < 0.05
    other = ovfast.quantize(
        language_model,
        tmp_path / "q",
        "ptq-int8",
        data=inputs[:8],
        packed=False,
        progress=False,
        force=True,
    )
    assert not other.reused
