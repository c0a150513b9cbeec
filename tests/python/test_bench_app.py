"""ovfast-bench beside OpenVINO's benchmark_app: the same options, texts, reports and errors."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from ovfast.cli import bench

PYTHON_APP = Path(sys.executable).with_name("benchmark_app")
USAGE, FAILURE, INTERRUPTED = 2, 3, 130


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of the error, as a user reads it."""
        usage = re.search(r"(?:ovfast-bench|benchmark_app): error: (.*)", self.err)
        if usage:
            return usage[1]
        logged = re.search(r"\[ ERROR \] (.*?)\s*(?=\[ INFO|Traceback|$)", self.out, re.DOTALL)
        return logged[1] if logged else ""


def execute(program: Path, *arguments: str | Path, cwd: Path) -> Run:
    done = subprocess.run(
        [program, *map(str, arguments)],
        cwd=cwd,
        env=bench.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def ours(*arguments: str | Path, cwd: Path) -> Run:
    return execute(bench.binary(), *arguments, cwd=cwd)


def theirs(*arguments: str | Path, cwd: Path) -> Run:
    return execute(PYTHON_APP, *arguments, cwd=cwd)


def named(name: str, shape: list[int], dtype: object) -> ov.Node:
    port = op.parameter(shape, dtype, name=f"{name}_node")
    port.output(0).set_names({name})
    return port


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small models: image.xml, free.xml (dynamic), text.xml (two inputs), ..."""
    folder = tmp_path_factory.mktemp("models")
    weights = op.constant(np.random.default_rng(0).standard_normal((8, 3, 3, 3), np.float32))

    def save(name: str, outputs: list[ov.Node], inputs: list[ov.Node]) -> None:
        for index, output in enumerate(outputs):
            output.output(0).set_names({f"out{index}"})
        ov.save_model(ov.Model(outputs, inputs, name), folder / f"{name}.xml", False)

    for name, shape in {"image": [1, 3, 32, 32], "free": [-1, 3, -1, -1]}.items():
        data = named("data", shape, np.float32)
        save(name, [op.convolution(data, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [data])
    ids, mask = named("ids", [-1, -1], np.int64), named("mask", [-1, -1], np.int64)
    table = op.constant(np.ones((300, 16), np.float32))
    gathered = op.gather(table, ids, op.constant(np.int64(0)))
    scaled = op.multiply(gathered, op.unsqueeze(op.convert(mask, "f32"), op.constant(np.int64(2))))
    save("text", [scaled], [ids, mask])
    flat = named("x", [2, 5], np.float32)
    save("flat", [op.relu(flat)], [flat])
    words = named("words", [1], ov.Type.string)
    ov.save_model(ov.Model([words], [words], "strings"), folder / "strings.xml")
    (folder / "broken.xml").write_text("<net name='broken'")
    compiled = ov.Core().compile_model(folder / "image.xml", "CPU")
    (folder / "image.blob").write_bytes(compiled.export_model().getvalue())
    np.save(folder / "doubles.npy", np.zeros((2, 5)))
    np.save(folder / "small.npy", np.zeros((1, 5), np.float32))
    np.save(folder / "right.npy", np.zeros((2, 5), np.float32))
    (folder / "short.bin").write_bytes(b"1234")
    return folder


# ---- The same error for the same wrong option ----

WRONG = [
    "",
    "-m",
    "-m nothing.xml",
    "-m broken.xml",
    "-m image.xml -t 0",
    "-m image.xml -t -3",
    "-m image.xml -t soon",
    "-m image.xml -niter -1",
    "-m image.xml -nireq 0",
    "-m image.xml -hint fast",
    "-m image.xml -api both",
    "-m image.xml -pc perhaps",
    "-m image.xml -ip f12",
    "-m image.xml -pin MAYBE",
    "-m image.xml -pcsort up",
    "-m image.xml -latency_percentile 0",
    "-m image.xml -latency_percentile 101",
    "-m image.xml -nosuchoption",
    "-m image.xml another",
    "-m image.xml -d NOSUCHDEVICE",
    "-m image.xml -nstreams 2",
    "-m image.xml -hint latency -pin YES",
    "-m image.xml -hint none -nstreams GPU:2",
    "-m image.xml -infer_precision GPU:f32",
    "-m image.xml -api sync -nireq 3 -niter 2",
    "-m image.xml -d MULTI:CPU -report_type average_counters",
    "-m image.xml -iop nothing:f16",
    "-m image.xml -iop data:f12",
    "-m image.xml -lfile --mean_values [1,2,3]",
    "-m image.blob -ip f32",
    "-m image.xml -shape data",
    "-m free.xml",
    "-m free.xml -data_shape [1,3,?,8]",
    "-m free.xml -data_shape [1,4,8,8]",
    "-m free.xml -data_shape [1,3,8,8][1,3,16,16] -api sync",
    "-m free.xml -data_shape [1,3,8,8][1,3,16,16] -inference_only",
    "-m text.xml -data_shape [1,8][1,8][1,8]",
    "-m text.xml -layout ids[NC],mask[CN] -data_shape ids[1,8],mask[8,4]",
    "-m flat.xml -b 3 -layout [XY]",
    "-m flat.xml -i x:doubles.npy",
    "-m flat.xml -i y:right.npy",
]


def normal(message: str, folder: Path) -> str:
    message = re.sub(r"invalid \w+ value: '", "invalid NUMBER value: '", message)
    message = re.sub(r"cpp:\d+", "cpp:LINE", message)  # of OpenVINO's source
    message = message.replace(str(folder) + "/", "")
    return " ".join(message.split())


def test_the_same_error_for_the_same_wrong_option(models: Path, tmp_path: Path) -> None:
    def both(line: str) -> tuple[str, Run, Run]:
        return line, ours(*line.split(), cwd=models), theirs(*line.split(), cwd=models)

    different = {}
    with ThreadPoolExecutor(2) as pool:
        for line, our, their in pool.map(both, WRONG):
            assert their.code in (1, 2), line
            wanted = (USAGE if their.code == 2 else FAILURE, normal(their.error, models))
            got = (our.code, normal(our.error, models))
            assert our.error, (line, our.out)
            if got != wanted:
                different[line] = (got, wanted)
    assert not different, "\n".join(f"{line}\n  {a}\n  {b}" for line, (a, b) in different.items())


OWN_ERRORS = {
    "-m image.xml -report_type all": "choose from 'no_counters', 'average_counters'",
    "-m image.xml -max_irate -1": "-1 is an invalid non-negative float value",
    "-m image.xml -nthreads -1": "-1 is an invalid non-negative int value",
    "-m image.xml -b 0": "0 is an invalid batch size",
    "-m image.xml -shape other[1,3,8,8]": "no input 'other'. Available inputs: data",
    "-m image.xml -layout other[NCHW]": "no input 'other'. Available inputs: data",
    "-m text.xml -data_shape ids[1,8][1,9],mask[1,8][1,9][1,7]": "should be either 1 or",
    "-m flat.xml --mean_values [1,2,3]": "needs an input that is an image",
    "-m image.xml -lfile -shape [1,3,8,8]": "aren't supported with --load_from_file",
    "-m image.blob --scale_values [1,2,3]": "aren't supported for compiled model",
    "-m image.blob -b 2": "aren't supported for compiled model",
    "-m image.xml -use_device_mem": "doesn't support `use_device_mem`",
    "-m image.xml -c kernels.xml": "for kernels of the GPU",
    "-m image.xml -load_config nothing.json": "Cannot read nothing.json",
    "-m image.xml -load_config broken.xml": 'expected {"DEVICE"',
    "-m strings.xml": "Input 'words' takes strings",
    "-m flat.xml -i nothing.npy": "'nothing.npy' doesn't exist",
    "-m flat.xml -i x:small.npy": "has shape: [1,5], expected: [2,5]",
    "-m flat.xml -i short.bin": "contains 32 bits but model expects 320",
    "-m flat.xml -i broken.xml": "None of the files",
    "-m .": "expected openvino_model.xml or saved_model.pb",
    "-m image.xml -extensions nothing.so": "nothing.so",
    "-m broken.blob": "broken.blob",
    "-m nothing.blob": "Cannot open model file nothing.blob",
}


@pytest.mark.parametrize("line", OWN_ERRORS)
def test_errors_of_our_own(line: str, models: Path) -> None:
    (models / "broken.blob").write_text("no model") if "broken.blob" in line else None
    run = ours(*line.split(), cwd=models)
    assert run.code in (USAGE, FAILURE), run.out
    if "broken.blob" not in line:  # the text is OpenVINO's
        assert OWN_ERRORS[line] in run.error
    assert "Throughput" not in run.out


def test_the_report_carries_the_error(models: Path, tmp_path: Path) -> None:
    for options in ((), ("-json_stats",)):
        run = ours(
            *("-m", models / "free.xml", "-report_type", "no_counters", *options), cwd=tmp_path
        )
        assert run.code == FAILURE
    report = json.loads((tmp_path / "benchmark_report.json").read_text())
    assert report["execution_results"]["error"] == "Input data is dynamic. Provide data shapes!"
    assert "\nerror;Input data is dynamic." in (tmp_path / "benchmark_report.csv").read_text()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("-m nothing.xml", FAILURE),
        ("-m broken.xml", FAILURE),
        ("-m strings.xml", FAILURE),
        ("-m image.xml -d NOSUCHDEVICE", FAILURE),
        ("-m image.xml -shape other[1,3,8,8]", FAILURE),
        ("-m flat.xml -i short.bin", FAILURE),
        ("-m image.xml -hint latency -pin YES", FAILURE),  # a rule, before anything is loaded
        ("-m image.xml -t 0", USAGE),
        ("-m image.xml -nireq -1", USAGE),
        ("-m image.xml -nosuchoption", USAGE),
        ("", USAGE),
    ],
)
def test_the_report_carries_every_error(line: str, code: int, models: Path, tmp_path: Path) -> None:
    report = ("-report_type", "no_counters", "-json_stats", "-report_folder", tmp_path)
    run = ours(*report, *line.split(), cwd=models)
    assert run.code == code
    error = json.loads((tmp_path / "benchmark_report.json").read_text())["execution_results"][
        "error"
    ]
    assert run.error in error
    assert len(run.error) > 10


@pytest.mark.parametrize(
    "options",
    [
        ("-report_type", "no_counters", "-report_folder", "missing/folder"),
        ("-report_type", "no_counters", "-report_folder", "a-file"),
        ("-dump_config", "missing/config.json"),
        ("-exec_graph_path", "missing/graph.xml"),
    ],
)
def test_unwritable_places_are_found_before_the_measuring(
    options: tuple[str, ...], models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    run = ours("-m", models / "image.xml", *options, cwd=tmp_path)
    assert run.code == FAILURE
    assert options[-1].split("/")[0] in run.error
    assert "[Step 2/11]" not in run.out
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


# ---- The same texts and reports ----


def lines_of(run: Run) -> list[str]:
    """What is printed, without figures and without the values of properties."""
    found = []
    for line in run.out.splitlines():
        line = re.sub(r"\d+\.\d+( us| ms)?", "N", line.replace("PerformanceMode.", ""))
        line = re.sub(r"\d+ KB", "N KB", line)
        if re.match(r"\[ INFO \]   [A-Z]", line) or "layout is not set explicitly" in line:
            continue
        found.append(line.rstrip())
    return found


@pytest.mark.parametrize(
    "line",
    [
        "-m image.xml -niter 11",
        "-m image.xml -niter 5 -hint latency -latency_percentile 90",
        "-m image.xml -niter 4 -api sync -b 2 -ip f32 -op f16 --mean_values [1,2,3]",
        "-m image.xml -niter 4 -hint none -nstreams 2 -nthreads 2 -infer_precision f32",
        "-m image.xml -niter 0 -shape [1,3,64,64]",
        "-m image.xml -niter 3 -lfile -no_warmup -api sync",
        "-m free.xml -niter 4 -api sync -data_shape [1,3,8,8] -inference_only",
        "-m text.xml -niter 7 -data_shape ids[1,8][2,8],mask[1,8][2,8] -layout [NC] -pcseq",
        "-m flat.xml -t 1 -niter 2 -i x:right.npy -inference_only false",
    ],
)
def test_the_same_text(line: str, models: Path) -> None:
    our, their = ours(*line.split(), cwd=models), theirs(*line.split(), cwd=models)
    assert our.code == their.code == 0, (our.out, their.out)
    wanted, got = lines_of(their), lines_of(our)
    if "-t 1" in line:  # the count is a figure, too
        wanted, got = ([x for x in lines if "Count:" not in x] for lines in (wanted, got))
    if "-lfile" in line:
        # As in C++, what the model takes is printed; as in Python, nothing else.
        start = got.index("[ INFO ] Original model I/O parameters:")
        del got[start : start + 5]
    if "-i x:" in line:
        got = [x for x in got if "files were added" not in x]
    # Warnings of several inputs come in another order.
    assert sorted(got) == sorted(wanted)
    assert [x for x in got if x.startswith("[Step")] == [x for x in wanted if x.startswith("[Step")]


def keys(value: object, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {name for k, v in value.items() for name in keys(v, f"{prefix}/{k}")}
    if isinstance(value, list):
        return {name for v in value for name in keys(v, f"{prefix}[]")}
    return {prefix}


CPP_RESULTS = {
    "read_model_time", "load_model_time", "first_inference_time", "execution_time",
    "iterations_num", "latency_median", "percentile_boundary", "latency_avg", "latency_min",
    "latency_max", "throughput",
}  # fmt: skip
CPP_CONFIGURATION = {
    "benchmark_mode", "topology", "target_device", "api", "precision", "batch_size",
    "iterations_num", "nireq", "duration",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["average_counters", "detailed_counters"])
def test_the_same_keys_in_json(kind: str, models: Path, tmp_path: Path) -> None:
    arguments = ["-m", models / "image.xml", "-niter", "4", "-report_type", kind, "-json_stats"]
    for name, run in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        assert run(*arguments, "-report_folder", tmp_path / name, cwd=tmp_path).code == 0
    for file in ("benchmark_report.json", f"benchmark_{kind}_report.json"):
        our = json.loads((tmp_path / "ours" / file).read_text())
        their = json.loads((tmp_path / "theirs" / file).read_text())
        assert keys(their) <= keys(our), keys(their) - keys(our)
        if file == "benchmark_report.json":
            assert set(our["execution_results"]) >= CPP_RESULTS
            assert set(our["configuration_setup"]) >= CPP_CONFIGURATION
            assert isinstance(our["execution_results"]["throughput"], float)
        else:
            assert keys(our) == keys(their)
            assert our["report_type"] == their["report_type"]


def sections(file: Path) -> dict[str, list[str]]:
    """The first cells of each section of a report."""
    found: dict[str, list[str]] = {}
    title = ""
    for row in csv.reader(file.open(), delimiter=";"):
        if len(row) == 1:
            title = row[0]
        elif row:
            found.setdefault(title, []).append(row[0])
    return found


def test_the_same_keys_in_csv(models: Path, tmp_path: Path) -> None:
    arguments = ["-m", models / "image.xml", "-niter", "4", "-report_type", "detailed_counters"]
    arguments += ["-hint", "none", "-nstreams", "1", "-latency_percentile", "99"]
    for name, run in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        assert run(*arguments, "-report_folder", tmp_path / name, cwd=tmp_path).code == 0
    our = sections(tmp_path / "ours" / "benchmark_report.csv")
    their = sections(tmp_path / "theirs" / "benchmark_report.csv")
    assert list(our) == list(their)
    for title, names in their.items():
        assert set(names) <= set(our[title]), title
    assert "Average latency (ms)" in our["Execution results"]
    assert "number of CPU streams" in our["Configuration setup"]
    counters = "benchmark_detailed_counters_report.csv"
    ours_text, theirs_text = ((tmp_path / name / counters).read_text() for name in
                              ("ours", "theirs"))  # fmt: skip
    figures = re.compile(r"(Status\.|\d+\.\d+)")
    assert figures.sub("", ours_text) == figures.sub("", theirs_text)


def test_counters_add_up(models: Path, tmp_path: Path) -> None:
    arguments = [
        "-m",
        models / "image.xml",
        "-niter",
        "2",
        "-report_type",
        "no_counters",
        "-pcsort",
    ]
    run = ours(*arguments, "sort", "-json_stats", cwd=tmp_path)
    assert run.code == 0
    assert "Performance counts sorted for 0-th infer request" in run.out
    report = json.loads((tmp_path / "benchmark_sorted_report.json").read_text())["avg_performance"]
    times = [node["real_time"] for node in report["nodes"]]
    assert times == sorted(times, reverse=True)
    assert sum(times) == pytest.approx(report["total_real_time"])
    assert {node["status"] for node in report["nodes"]} <= {"EXECUTED", "NOT_RUN", "OPTIMIZED_OUT"}
    simple = ours(*arguments, "simple_sort", cwd=tmp_path).out
    assert " NOT_RUN " in run.out
    assert " NOT_RUN " not in simple


def test_dumped_and_loaded_configuration(models: Path, tmp_path: Path) -> None:
    arguments = ["-m", models / "image.xml", "-niter", "2", "-hint", "none", "-nstreams", "2"]
    arguments += ["-infer_precision", "f32", "-pin", "NO", "-pc", "-dump_config"]
    assert ours(*arguments, "ours.json", cwd=tmp_path).code == 0
    assert theirs(*arguments, "theirs.json", cwd=tmp_path).code == 0
    our, their = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("ours", "theirs"))
    assert our == their

    loaded = ours("-m", models / "image.xml", "-niter", "2", "-load_config", "ours.json", "-hint",
                  "none", "-dump_config", "again.json", cwd=tmp_path)  # fmt: skip
    assert loaded.code == 0
    assert "NUM_STREAMS: 2\n" in loaded.out
    assert "2 streams for CPU" in loaded.out
    assert json.loads((tmp_path / "again.json").read_text()) == our
    # The command line comes first.
    won = ours("-m", models / "image.xml", "-niter", "2", "-load_config", "ours.json", "-hint",
               "none", "-nstreams", "1", cwd=tmp_path)  # fmt: skip
    assert "NUM_STREAMS: 1\n" in won.out


def test_the_executed_graph_is_written(models: Path, tmp_path: Path) -> None:
    run = ours("-m", models / "image.xml", "-niter", "2", "-exec_graph_path", "g.xml", cwd=tmp_path)
    assert run.code == 0
    layers = ET.parse(tmp_path / "g.xml").getroot().iter("layer")
    assert "Convolution" in {layer.attrib["type"] for layer in layers}


def test_compiled_models_and_the_cache(models: Path, tmp_path: Path) -> None:
    run = ours("-m", models / "image.blob", "-niter", "4", cwd=tmp_path)
    assert run.code == 0, run.out
    assert "Import model took" in run.out
    assert ours("-m", models / "image.xml", "-niter", "0", "-cdir", "cache", cwd=tmp_path).code == 0
    assert list((tmp_path / "cache").glob("*"))


def test_a_model_directory_is_its_model(models: Path, tmp_path: Path) -> None:
    for suffix in ("xml", "bin"):
        shutil.copy(models / f"image.{suffix}", tmp_path / f"openvino_model.{suffix}")
    assert ours("-m", tmp_path, "-niter", "2", cwd=tmp_path).code == 0


def test_a_packed_directory_runs(tiny_model_dirs: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_model_dirs["qwen2"]
    assert "ovfast" in (folder / "openvino_model.xml").read_text()
    shapes = "input_ids[1,4],attention_mask[1,4],position_ids[1,4],beam_idx[1]"
    # Its state grows with each inference, the mask does not: once for each request.
    once = ("-nireq", "2", "-niter", "2", "-no_warmup", "-exec_graph_path", "g.xml")
    run = ours("-m", folder, "-data_shape", shapes, *once, cwd=tmp_path)
    assert run.code == 0, run.out
    assert "Count:            2 iterations" in run.out
    assert "ovfast-bench llm" in run.out


def test_help_names_options_and_devices(tmp_path: Path) -> None:
    run = ours("-h", cwd=tmp_path)
    assert run.code == 0
    theirs_help = theirs("-h", cwd=tmp_path).out
    for option in set(re.findall(r"^  (-\w+)", theirs_help, re.MULTILINE)):
        assert re.search(rf"(^|/){option}\b|/-{option}\b", run.out, re.MULTILINE) or (
            f"  {option}" in run.out
        ), option
    assert re.search(r"Available target devices: .*CPU", run.out)


def test_pictures_come_resized(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
    run = ours("-m", models / "image.xml", "-niter", "2", "-i", "a.ppm", cwd=tmp_path)
    assert run.code == 0, run.out
    assert "Prepare image a.ppm" in run.out
    assert "Image is resized" in run.out


# ---- Ctrl+C ----


def started(arguments: list[str | Path], cwd: Path) -> subprocess.Popen[str]:
    """A run of which the measuring has begun."""
    run = subprocess.Popen(
        [bench.binary(), *map(str, arguments)],
        cwd=cwd,
        env=bench.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "First inference took" in line:
            time.sleep(0.5)
            return run
    raise AssertionError("the measuring did not begin")


@pytest.mark.parametrize("extra", [(), ("-max_irate", "0.05"), ("-api", "sync")])
def test_ctrl_c_ends_the_measuring(extra: tuple[str, ...], models: Path, tmp_path: Path) -> None:
    arguments = ["-m", models / "image.xml", "-t", "60", "-json_stats", *extra]
    run = started([*arguments, "-report_type", "average_counters"], tmp_path)
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert run.returncode == INTERRUPTED
    assert "[Step 11/11]" in out
    assert re.search(r"Throughput:   \d+\.\d+ FPS", out)
    results = json.loads((tmp_path / "benchmark_report.json").read_text())["execution_results"]
    assert results["interrupted"] == "True"
    assert results["iterations_num"] > 0
    assert results["execution_time"] < 30_000


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    # One inference of about a minute, so that the first Ctrl+C has to wait for it.
    data = named("data", [4], np.float32)
    inner = op.parameter([4], np.float32)
    again = op.constant(True)
    step = op.add(inner, op.constant(np.float32(1)))
    loop = op.loop(op.constant(np.int64(20_000_000)), op.constant(True))
    loop.set_function(ov.Model([again, step], [inner]))
    loop.set_special_body_ports([-1, 0])
    loop.set_merged_input(inner, data.output(0), step.output(0))
    result = loop.get_iter_value(step.output(0), -1)
    ov.save_model(ov.Model([result], [data], "long"), tmp_path / "long.xml", False)
    run = subprocess.Popen(
        [bench.binary(), "-m", "long.xml", "-niter", "1", "-api", "sync", "-no_warmup"],
        cwd=tmp_path,
        env=bench.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert any("Skipping warmup" in line for line in run.stdout)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    time.sleep(1)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=10) == -signal.SIGINT


def test_the_console_command_is_the_binary(models: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("ovfast-bench")
    run = execute(script, "-m", models / "image.xml", "-niter", "0", cwd=tmp_path)
    assert run.code == 0, run.err
    assert execute(script, cwd=tmp_path).code == USAGE
    assert os.access(bench.binary(), os.X_OK)
