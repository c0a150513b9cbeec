"""`ovfast-bench llm`, `compare`, `devices`, `roofline`: figures that add up, and errors that are said.

Every run is of the real binary on a tiny model with random weights.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_harness import llm, run
from terminal import CTRL_C, Terminal

from ovfast import _core
from ovfast._openvino import tokenizers_extension
from ovfast.cli import bench

TinyModel = Callable[[str, str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Path:
    return tiny_model("qwen2", "Q8_0")[1]


SLO_TTFT, SLO_TPOT = 6.0, 1.5
SHORT = ("--prompt-tokens", 16, "--output-tokens", 3, "--warmup", 0)


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON, CSV, HTML and text of four workloads, two runs of each."""
    folder = tmp_path_factory.mktemp("bench")
    done = run(
        *("llm", "-m", model, "--prompt-tokens", "20,40", "--output-tokens", 6),
        *("--concurrency", "1,3", "--requests", 6, "--runs", 2, "--detail"),
        *("--slo-ttft", SLO_TTFT, "--slo-tpot", SLO_TPOT, "--json", folder / "report.json"),
        *("--csv", folder / "report.csv", "--html", folder / "report.html"),
    )
    assert done.stderr == ""  # no progress where nobody watches
    (folder / "report.txt").write_text(done.stdout)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"report.{ending}" for ending in ("csv", "html", "json", "txt")
    ]
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def workloads(report: dict[str, Any]) -> list[dict[str, Any]]:
    return report["configurations"][0]["workloads"]


def nearest_rank(values: list[float], percent: float) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def test_every_token_is_counted(report):
    assert report["error"] is None
    assert [
        (one["prompt_tokens"], one["output_tokens"], one["concurrency"])
        for one in workloads(report)
    ] == [(20, 6, 1), (20, 6, 3), (40, 6, 1), (40, 6, 3)]
    for workload in workloads(report):
        assert len(workload["runs"]) == 2
        for one in workload["runs"]:
            assert (one["completed"], one["cancelled"]) == (6, 0)
            assert one["prompt_tokens"] == 6 * workload["prompt_tokens"]
            assert one["generated_tokens"] == 6 * 6  # whatever tokens they were
            assert one["cached_tokens"] == 0  # another prompt each time
            for request in one["requests"]:
                assert request["prompt_tokens"] == workload["prompt_tokens"]
                assert len(request["inter_token_ms"]) == 5


def test_times_of_a_request_add_up(report):
    for workload in workloads(report):
        for one in workload["runs"]:
            for request in one["requests"]:
                after = request["end_to_end_ms"] - request["ttft_ms"]
                assert sum(request["inter_token_ms"]) == pytest.approx(after, rel=1e-3, abs=1e-3)
                assert request["tpot_ms"] == pytest.approx(after / 5)
                assert 0 <= request["queue_ms"] <= request["ttft_ms"]
                assert request["infer_ms"] <= request["end_to_end_ms"]


def test_figures_are_those_of_the_requests(report):
    for workload in workloads(report):
        figures = workload["figures"]
        for key, of in (
            ("ttft_ms", lambda request: [request["ttft_ms"]]),
            ("tpot_ms", lambda request: [request["tpot_ms"]]),
            ("inter_token_ms", lambda request: request["inter_token_ms"]),
            ("end_to_end_ms", lambda request: [request["end_to_end_ms"]]),
        ):
            runs = [
                [value for request in one["requests"] for value in of(request)]
                for one in workload["runs"]
            ]
            values = [value for run in runs for value in run]
            assert figures[key]["count"] == len(values)
            assert figures[key]["mean"] == pytest.approx(statistics.fmean(values), rel=1e-5)
            assert figures[key]["median"] == pytest.approx(statistics.median(values), rel=1e-5)
            for percent in (50, 90, 99):
                expected = nearest_rank(values, percent)
                assert figures[key][f"p{percent}"] == pytest.approx(expected, rel=1e-5)
            medians = [statistics.median(run) for run in runs]
            over = figures[key]["run_medians"]
            assert over["mean"] == pytest.approx(statistics.fmean(medians), rel=1e-5)
            spread = (max(medians) - min(medians)) / statistics.median(medians)
            assert over["spread"] == pytest.approx(spread, rel=1e-4, abs=1e-6)


def test_rates_and_goodput(report):
    for workload in workloads(report):
        for one in workload["runs"]:
            requests = one["requests"]
            end = max(request["submitted_ms"] + request["end_to_end_ms"] for request in requests)
            seconds = (end - min(request["submitted_ms"] for request in requests)) / 1e3
            assert one["seconds"] == pytest.approx(seconds, rel=1e-3)
            assert one["tokens_out_per_second"] == pytest.approx(36 / one["seconds"])
            tokens_in = 6 * workload["prompt_tokens"]
            assert one["tokens_in_per_second"] == pytest.approx(tokens_in / one["seconds"])
            assert one["requests_per_second"] == pytest.approx(6 / one["seconds"])
            good = sum(
                request["ttft_ms"] <= SLO_TTFT and request["tpot_ms"] <= SLO_TPOT
                for request in requests
            )
            assert one["goodput_per_second"] == pytest.approx(good / one["seconds"])


def test_concurrency_is_kept(report):
    for workload in workloads(report):
        for one in workload["runs"]:
            begun = [(request["submitted_ms"], 1) for request in one["requests"]]
            ended = [
                (request["submitted_ms"] + request["end_to_end_ms"] - 1e-6, -1)
                for request in one["requests"]
            ]
            held = most = 0
            for _, change in sorted(begun + ended):
                held += change
                most = max(most, held)
            assert most == workload["concurrency"]


def test_kv_memory(report):
    configuration = report["configurations"][0]
    block = configuration["kv_block_tokens"]
    for workload in workloads(report):
        blocks = -(-(workload["prompt_tokens"] + 6) // block) * workload["concurrency"]
        most = blocks * block * configuration["kv_bytes_per_token"]
        for one in workload["runs"]:
            assert 0 < one["kv_bytes"] <= most
            if workload["concurrency"] == 1:
                assert one["kv_bytes"] == most


def test_load_and_memory(report):
    configuration = report["configurations"][0]
    parts = ("tokenizer_ms", "read_ms", "compile_ms")
    assert sum(configuration[part] for part in parts) <= configuration["load_ms"]
    assert configuration["first_inference_ms"] > 0
    # A tiny model: not what the probe of the machine's memory holds.
    assert 20e6 < report["peak_rss_bytes"] < 450e6
    assert report["machine"]["limits"]["read_bytes_per_second"] > 1e8
    assert report["machine"]["limits"]["probes"] == 3


def test_csv_has_the_same_figures(folder, report):
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    runs = [one for workload in workloads(report) for one in workload["runs"]]
    assert len(rows) == len(runs) == 8
    for row, one in zip(rows, runs, strict=True):
        assert int(row["tokens_out"]) == one["generated_tokens"]
        for key in ("ttft", "tpot", "inter_token"):
            for figure in ("mean", "p50", "p99"):
                assert float(row[f"{key}_{figure}_ms"]) == pytest.approx(
                    one[f"{key}_ms"][figure], rel=1e-4
                )


def test_html_and_text(folder, model):
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 4
    assert "Tokens/s out against concurrency" in page
    assert "http" not in page  # nothing to fetch
    text = (folder / "report.txt").read_text()
    assert str(model) in text
    for title in ("TTFT ms", "TPOT ms", "Inter-token latency ms", "Tokens/s out", "Goodput"):
        assert text.count(title) == 4


def test_arrivals_do_not_wait(tmp_path, model):
    report = llm(tmp_path, model, *SHORT, "--rate", 200, "--requests", 30, "--runs", 1, "--detail")
    (workload,) = workloads(report)
    assert (workload["rate"], workload["concurrency"]) == (200, None)
    submitted = [request["submitted_ms"] for request in workload["runs"][0]["requests"]]
    assert submitted == sorted(submitted)
    # 29 gaps of 5 ms; their sum has a deviation of 27 ms.
    assert 60 < submitted[-1] < 400
    gaps = [later - earlier for earlier, later in itertools.pairwise(submitted)]
    assert statistics.stdev(gaps) > 1.5  # not a steady beat


def test_prompts_of_a_file(tmp_path, model):
    ids = tmp_path / "ids.txt"
    ids.write_text("5 6 7\n\n8, 9, 10, 11\n")
    options = ("--output-tokens", 2, "--runs", 1, "--requests", 2, "--detail", "--warmup", 0)
    report = llm(tmp_path, model, "--prompts", ids, *options)
    (workload,) = workloads(report)
    assert workload["prompt_tokens"] is None
    assert [request["prompt_tokens"] for request in workload["runs"][0]["requests"]] == [3, 4]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"token_ids": [1, 2]}\n{"prompt": "The quick brown fox"}\n')
    report = llm(tmp_path, model, "--prompts", lines, *options)
    lengths = [request["prompt_tokens"] for request in workloads(report)[0]["runs"][0]["requests"]]
    assert lengths[0] == 2
    assert lengths[1] > 2


def test_repeated_prompts_are_named(tmp_path, model):
    ids = tmp_path / "ids.txt"
    ids.write_text(" ".join(map(str, range(5, 105))))
    options = ("--output-tokens", 2, "--runs", 2, "--prompts", ids)
    report = llm(tmp_path, model, *options)
    assert any("prefix cache" in warning for warning in report["warnings"])
    report = llm(tmp_path, model, *options, "--no-prefix-caching")
    assert not any("prefix cache" in warning for warning in report["warnings"])


def test_ab(tmp_path, model):
    report = llm(tmp_path, model, *SHORT, "--runs", 6, "--ab", "attention=openvino,packed=auto")
    a, b = report["configurations"]
    assert (a["attention"], b["attention"]) == ("ovfast", "openvino")
    assert b["options"] == "attention=openvino"
    figures = {one["figure"]: one for one in report["comparison"]}
    tpot = figures["TPOT ms"]
    runs = [[one["tpot_ms"]["median"] for one in side["workloads"][0]["runs"]] for side in (a, b)]
    assert len(runs[0]) == len(runs[1]) == 6
    assert tpot["ratio_of_medians"] == pytest.approx(
        statistics.median(runs[1]) / statistics.median(runs[0])
    )
    # Six pairs: the interval is that of their extremes.
    ratios = [second / first for first, second in zip(*runs, strict=True)]
    assert tpot["low"] == pytest.approx(min(ratios))
    assert tpot["high"] == pytest.approx(max(ratios))
    assert tpot["confidence"] == pytest.approx(1 - 2 / 64)
    expected = (
        "faster" if max(ratios) < 1 else "slower" if min(ratios) > 1 else "no difference shown"
    )
    assert tpot["verdict"] == expected
    done = run("compare", tmp_path / "report.json", tmp_path / "report.json", code=1)
    assert "compares 2 configurations already" in done.stderr


def test_ab_of_a_file(tmp_path, model):
    changes = tmp_path / "b.json"
    changes.write_text(json.dumps({"threads": 1, "property": {"NUM_STREAMS": "1"}}))
    report = llm(tmp_path, model, *SHORT, "--runs", 1, "--ab", changes)
    b = report["configurations"][1]
    assert b["threads"] == 1
    assert b["properties"] == {"NUM_STREAMS": "1"}
    assert all(one["verdict"] == "too few runs" for one in report["comparison"])


def test_compare(tmp_path, model):
    files = []
    for name, tokens in (("a", 16), ("b", 16), ("other", 17)):
        file = tmp_path / f"{name}.json"
        options = ("--output-tokens", 3, "--runs", 4, "--json", file)
        run("llm", "-m", model, "--prompt-tokens", tokens, *options)
        files.append(file)
    compared = json.loads(run("compare", files[0], files[1], "--json").stdout)["comparison"]
    ttft = next(one for one in compared if one["figure"] == "TTFT ms")
    runs = [
        [one["ttft_ms"]["median"] for one in workloads(json.loads(file.read_text()))[0]["runs"]]
        for file in files[:2]
    ]
    # Four and four: the interval is that of the extremes of all 16 ratios.
    assert ttft["low"] == pytest.approx(min(runs[1]) / max(runs[0]))
    assert ttft["high"] == pytest.approx(max(runs[1]) / min(runs[0]))
    assert "B / A" in run("compare", *files[:2]).stdout
    both = json.loads(run("compare", f"{files[0]},{files[1]}", files[1], "--json").stdout)
    assert both["a"] == [str(files[0]), str(files[1])]
    done = run("compare", files[0], files[2], code=1)
    assert "no workload in common" in done.stderr


def test_compare_refuses(tmp_path, model):
    good = tmp_path / "report.json"
    llm(tmp_path, model, *SHORT, "--runs", 1)
    bad = tmp_path / "bad.json"
    for content, message in (
        ("{", "expected a JSON report"),
        ("[]", "expected a JSON report"),
        ('{"tool": "ovfast-bench", "mode": "llm", "error": "it broke"}', "reports an error"),
        ('{"execution_results": {"throughput": 5.0}}', "it is of benchmark_app"),
    ):
        bad.write_text(content)
        assert message in run("compare", good, bad, code=1).stderr
    assert "cannot" in run("compare", good, tmp_path / "none.json", code=1).stderr.lower()
    run("compare", good, code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt-tokens", "0"], "--prompt-tokens is 0, expected numbers above 0"),
        (["--prompt-tokens", "5,-1"], "--prompt-tokens is -1"),
        (["--output-tokens", "0"], "--output-tokens is 0"),
        (["--concurrency", "-2"], "--concurrency is -2"),
        (["--concurrency", "2,2"], "each number once"),
        (["--concurrency", "9", "--max-sequences", "8"], "--max-sequences, which is 8"),
        (["--concurrency", "4", "--requests", "3"], "at least the concurrency, which is 4"),
        (["--requests", "-1"], "--requests is -1"),
        (["--rate", "0"], "--rate is 0"),
        (["--rate", "2", "--concurrency", "2"], "contradict each other"),
        (["--prompts", "x", "--prompt-tokens", "5"], "contradict each other"),
        (["--runs", "0"], "--runs is 0"),
        (["--runs", "-3"], "--runs is -3"),
        (["--runs", "many"], "many"),
        (["--warmup", "-1"], "--warmup is -1"),
        (["--slo-ttft", "0"], "--slo-ttft is 0"),
        (["--slo-tpot", "-1"], "--slo-tpot is -1"),
        (["--threads", "-1"], "num_threads is -1"),
        (["--attention", "mine"], "attention is 'mine'"),
        (["--device", "GPU"], "device is 'GPU'"),
        (["--device", "NOSUCH"], "device is 'NOSUCH', expected 'CPU', 'GPU'"),
        (["--device", "AUTO"], "packed weights, which only the CPU runs"),
        (["--tile-kb", "-1"], "tile_kb is -1"),
        (["--key-file", "a", "--key-env", "b"], "--key-file and --key-env both say"),
        (["--property", "PERF_COUNT"], "--property wants KEY=VALUE"),
        (["--property", "NO_SUCH=1"], "property 'NO_SUCH' is not one"),
        (["--ab", "speed=1"], "speed"),
        (["--ab", "threads=1", "--pc"], "contradict each other"),
        (["--no-such-option"], "--no-such-option"),
        (["--csv", "{json}"], "two reports go to"),
    ],
)
def test_wrong_usage(tmp_path, model, arguments, message):
    file = tmp_path / "report.json"
    words = [word.format(json=file) for word in arguments]
    done = run("llm", "-m", model, "--json", file, *words, code=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert message in json.loads(file.read_text())["error"]


def test_failures(tmp_path, model):
    def error(*arguments: object, code: int = 1) -> str:
        report = llm(tmp_path, *arguments, code=code)
        return report["error"]

    assert "does not exist" in error(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "got none; export the model again" in error(tmp_path / "empty")
    assert "is no directory" in error(model / "openvino_model.xml")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "ovfast export" in error(tmp_path / "model.gguf")
    for name, content, message in (
        ("openvino_model.bin", "1234", "got 4. Pack or export the model again"),
        ("openvino_model.xml", "<net", "got 4. Pack or export the model again"),
        ("config.json", "{", "config.json' is no JSON"),
        ("openvino_tokenizer.xml", None, "openvino_tokenizer.xml, got none"),
    ):
        broken = shutil.copytree(model, tmp_path / f"without-{name}")
        if content is None:
            (broken / name).unlink()
        else:
            (broken / name).write_text(content)
        assert message in error(broken)
    assert "the context has" in error(model, "--prompt-tokens", 500, "--output-tokens", 100)
    bad = tmp_path / "bad.txt"
    bad.write_text("1 2\n3 four\n")
    assert "line 2: expected token ids, got 'four'" in error(model, "--prompts", bad)
    bad.write_text("\n")
    assert "holds no prompt" in error(model, "--prompts", bad)
    bad.write_text("1 99999999")
    assert "99999999" in error(model, "--prompts", bad, code=2)
    assert "cannot read" in error(model, "--prompts", tmp_path / "none.txt")


def test_unwritable_reports_are_found_first(tmp_path, model):
    for option in ("--json", "--csv", "--html"):
        done = run("llm", "-m", model, option, tmp_path / "none" / "report", code=1)
        assert "cannot write" in done.stderr
        assert done.stdout == ""
    assert "it is a directory" in run("llm", "-m", model, "--json", tmp_path, code=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_reports_what_was_done(tmp_path, model):
    file = tmp_path / "report.json"
    words = ["llm", "-m", model, "--prompt-tokens", 16, "--output-tokens", 64]
    words += ["--runs", 100000, "--json", file]
    with Terminal([str(bench.binary()), *map(str, words)], env=bench.environment()) as terminal:
        terminal.expect("Run 3/100000")
        terminal.type(CTRL_C)
        terminal.expect("Interrupted", timeout=60)
        assert terminal.process.wait(60) == 130
    report = json.loads(file.read_text())
    assert report["interrupted"] is True
    assert report["error"] is None
    runs = workloads(report)[0]["runs"]
    assert len(runs) >= 2
    assert runs[0]["completed"] == 1
    assert sum(one["cancelled"] for one in runs) <= 1


def test_roofline_counts_the_model(model):
    """Qwen2 with Shape() of tiny_models.py, counted by hand."""
    report = json.loads(
        run("roofline", "-m", model, "--context", 50, "--prompt-tokens", 8, "--json").stdout
    )
    layers = _core.inspect_packing(model).layers
    sizes = report["weight_bytes_by_type"]
    packed = sum(size for kind, size in sizes.items() if kind.startswith("packed"))
    assert packed == sum(layer.packed_bytes for layer in layers)
    hidden, key, feed_forward, heads, head = 128, 64, 256, 4, 32
    a_layer = hidden * (hidden + 2 * key + hidden) + 3 * hidden * feed_forward
    vocabulary = _core.Tokenizer(model, tokenizers_extension()).vocab_size
    decode, prefill = report["rows"]
    assert decode["int8_operations"] == 2 * (2 * a_layer + vocabulary * hidden)
    assert prefill["int8_operations"] == 2 * (8 * 2 * a_layer + vocabulary * hidden)
    attention = 2 * 2 * heads * 2 * head  # two layers, scores and values
    rotation = decode["f32_operations"] - 50 * attention
    assert 0 <= rotation < 2000  # angles of one position
    assert prefill["f32_operations"] - 8 * rotation == 36 * attention
    limits = report["machine"]
    memory = decode["bytes"] / limits["read_bytes_per_second"] * 1e3
    assert decode["memory_limit_ms"] == pytest.approx(memory)
    assert decode["limit_ms"] == max(decode["memory_limit_ms"], decode["compute_limit_ms"])


def test_roofline_of_steps_and_layers(tmp_path, model):
    report = llm(tmp_path, model, *SHORT, "--runs", 1, "--pc")
    roofline = report["roofline"]
    assert [row["name"].split(",")[0] for row in roofline["steps"]] == ["decode", "prefill"]
    for row in roofline["steps"]:
        assert row["share_of_limit"] == pytest.approx(row["limit_ms"] / row["measured_ms"])
        assert 0 < row["share_of_limit"] < 1  # of a model so small, hardly anything
    names = {layer.name for layer in _core.inspect_packing(model).layers if layer.operation}
    for phase in ("decode_layers", "prefill_layers"):
        rows = roofline[phase]
        assert names <= {row["name"] for row in rows}
        attention = next(row for row in rows if row["name"] == "attention")
        assert attention["f32_operations"] > 0
        # The plugin counts whole microseconds: of layers so small, some take none.
        assert sum(row.get("measured_ms", 0.0) for row in rows if row["name"] in names) > 0


@pytest.mark.parametrize(
    "arguments", [["--probes", "0"], ["--threads", "-1"], ["--prompt-tokens", "0"], ["--what"]]
)
def test_roofline_refuses(arguments):
    assert run("roofline", *arguments, code=2).stderr.startswith("ovfast-bench roofline: error: ")


def test_roofline_without_a_model(tmp_path):
    assert "memory reads at" in run("roofline", "--probes", 1).stdout
    assert "does not exist" in run("roofline", "-m", tmp_path / "none.xml", code=1).stderr
    (tmp_path / "bad.xml").write_text("no model")
    assert "cannot read" in run("roofline", "-m", tmp_path / "bad.xml", code=1).stderr


def test_roofline_of_benchmark_app(tmp_path):
    """A convolution, counted by hand: 8 filters of 3x3x3 at 30x30 places."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as op

    image = op.parameter([1, 3, 32, 32], ov.Type.f32, name="image")
    filters = op.constant(np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype("f"))
    convolution = op.convolution(image, filters, [1, 1], [0, 0], [0, 0], [1, 1])
    file = tmp_path / "model.xml"
    ov.save_model(ov.Model([convolution], [image]), file, compress_to_fp16=False)
    counted = json.loads(run("roofline", "-m", file, "--json", "--probes", 1).stdout)
    (row,) = counted["rows"]
    assert row["f32_operations"] == 2 * 8 * 27 * 30 * 30
    assert row["bytes"] == 8 * 27 * 4
    app = ("-m", file, "-niter", 20, "-nireq", 1, "-roofline", "-pc")
    done = run(*app, cwd=tmp_path)
    assert "Roofline: memory reads at" in done.stdout
    assert "of the limit" in done.stdout
    done = run("-m", file, "-niter", 1, "-load_from_file", "-roofline", cwd=tmp_path, code=3)
    assert "have no graph" in done.stdout


def test_ab_of_benchmark_app(tmp_path):
    import openvino as ov
    from openvino import opset13 as op

    image = op.parameter([1, 64], ov.Type.f32, name="image")
    ov.save_model(ov.Model([op.relu(image)], [image]), tmp_path / "model.xml")
    app = ("-m", tmp_path / "model.xml", "-t", 1, "-ab")
    done = run(*app, "nireq=1,hint=none,nstreams=1", cwd=tmp_path)
    assert "B against A, 8 rounds in alternation" in done.stdout
    assert "Throughput, FPS" in done.stdout
    (tmp_path / "b.json").write_text('{"nthreads": 1, "hint": "none"}')
    assert "8 rounds" in run(*app, "b.json", cwd=tmp_path).stdout
    assert "unrecognized" in run(*app, "what=1", cwd=tmp_path, code=2).stderr
    assert "leave out -pc" in run(*app, "nireq=1", "-pc", cwd=tmp_path, code=3).stdout


def test_devices():
    report = json.loads(run("devices", "--json").stdout)
    cpu = next(one for one in report["devices"] if one["device"] == "CPU")
    properties = {one["name"]: one for one in cpu["properties"]}
    assert properties["NUM_STREAMS"]["mutable"] is True
    assert properties["FULL_DEVICE_NAME"]["mutable"] is False
    host = _core.read_host_limits()
    assert report["host"]["cpu"] == host.cpu_name
    assert report["host"]["threads"] == host.threads
    assert report["host"]["isa"] == host.isa
    assert report["host"]["kernels"] == _core.supported_isas()
    assert report["host"]["memory_bytes"] == host.memory_total
    text = run("devices").stdout
    assert "Mutable: NUM_STREAMS" in text
    assert f"selected: {report['host']['kernels_selected']}" in text
    run("devices", "--what", code=2)


def test_devices_with_a_forced_isa(monkeypatch):
    monkeypatch.setenv("OVFAST_FORCE_ISA", "scalar")
    host = json.loads(run("devices", "--json").stdout)["host"]
    assert (host["kernels_forced"], host["kernels_selected"]) == ("scalar", "scalar")


@pytest.mark.real_model
def test_real_model(tmp_path, real_model_dir):
    report = llm(
        tmp_path,
        real_model_dir,
        *("--prompt-tokens", 64, "--output-tokens", 8, "--concurrency", "1,2", "--runs", 2),
        *("--roofline", "--detail"),
    )
    for workload in workloads(report):
        for one in workload["runs"]:
            assert one["generated_tokens"] == 8 * workload["concurrency"]
            for request in one["requests"]:
                after = request["end_to_end_ms"] - request["ttft_ms"]
                assert sum(request["inter_token_ms"]) == pytest.approx(after, rel=1e-3)
    roofline = report["roofline"]
    weights = report["configurations"][0][
        "weights_bytes"
    ]  # all constants, as the engine counts them
    assert roofline["weight_bytes"] == pytest.approx(weights, rel=0.01)
    decode = roofline["steps"][0]
    assert decode["bound_by"] == "memory"
    assert 0.05 < decode["share_of_limit"] < 2  # a machine of others' may change between probes


def test_sigterm_while_loading(tmp_path, model):
    file = tmp_path / "report.json"
    process = subprocess.Popen(
        [bench.binary(), "llm", "-m", model, "--runs", "100000", "--json", file],
        env=bench.environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("report.json.partial-*")):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert json.loads(file.read_text())["interrupted"] is True
