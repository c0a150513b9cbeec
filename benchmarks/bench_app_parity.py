"""ovfast-bench beside the Python benchmark_app: the same models, the same options, in turn.

    python benchmarks/bench_app_parity.py [--models ocr,vad,...] [--runs 5] [--seconds 3]

Prints for each model and mode the median of the ratios of throughput and of median latency, ours to
theirs, with the smallest and the largest; --json writes all figures. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
from openvino._offline_transformations import stateful_to_stateless_transformation

from ovfast.cache import cache_dir, cached_export
from ovfast.cli import bench

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))


@dataclass(frozen=True)
class Case:
    """A model and the options that it needs."""

    model: Path
    options: tuple[str, ...] = ()


def package(name: str) -> Path:
    """The folder with the models of a package, fetched when it is not there."""
    tool = importlib.import_module("test_models")
    return Path(tool.fetch(name, cache_dir() / "test-models"))


def ocr_classifier() -> Case:
    """A static ONNX file: the direction of lines."""
    model = package("rapidocr-onnxruntime") / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    return Case(model, ("-shape", "[1,3,48,192]"))


def ocr_detector() -> Case:
    """A dynamic ONNX file, measured with tensors of two shapes."""
    model = package("rapidocr-onnxruntime") / "ch_PP-OCRv4_det_infer.onnx"
    return Case(model, ("-data_shape", "[1,3,160,160][1,3,224,160]", "-layout", "[NCHW]"))


def voice_activity() -> Case:
    """A recurrent ONNX file of very short inferences, with scalars among its inputs."""
    model = package("silero-vad") / "silero_vad_op18_ifless.onnx"
    return Case(model, ("-data_shape", "input[1,512],state[2,1,128]"))


def pitch() -> Case:
    """A TensorFlow Lite file."""
    return Case(package("basic-pitch") / "nmp.tflite", ("-shape", "[1,43844,1]"))


def int8() -> Case:
    """The classifier with weights and activations in 8 bits."""
    directory = cache_dir() / "bench-parity"
    made = directory / "cls-int8.xml"
    if not made.exists():
        directory.mkdir(parents=True, exist_ok=True)
        # Speed does not depend on the ranges: noise will do for calibration.
        noise = np.random.default_rng(0).uniform(-1, 1, (16, 3, 48, 192)).astype(np.float32)
        np.savez(directory / "noise.npz", x=noise)
        command = [sys.executable, "-m", "ovfast", "quantize", str(ocr_classifier().model)]
        command += ["--recipe", "ptq-int8", "-o", str(made), "--data", str(directory / "noise.npz")]
        subprocess.run(command, check=True)
    return Case(made, ("-shape", "[1,3,48,192]"))


def language_model() -> Case:
    """A token of the demo model, after 64 others, in OpenVINO's own operations.

    benchmark_app cannot run a stateful model twice, as the mask must grow with the state: here the
    state is made inputs and outputs.
    """
    made = cache_dir() / "bench-parity" / "demo-stateless.xml"
    if not made.exists():
        command = [sys.executable, str(ROOT / "tools" / "demo_model.py")]
        gguf = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        source = cached_export(gguf, packed=False) / "openvino_model.xml"
        model = ov.Core().read_model(source)
        stateful_to_stateless_transformation(model)
        made.parent.mkdir(parents=True, exist_ok=True)
        ov.save_model(model, made, compress_to_fp16=False)
    shapes = []
    for port in ov.Core().read_model(made).inputs:
        shape = {"attention_mask": "1,65"}.get(port.any_name, "1,1")
        if port.partial_shape.rank.get_length() == 4:  # keys or values: batch, tokens, heads, size
            heads, size = (port.partial_shape[axis].get_length() for axis in (2, 3))
            shape = f"1,64,{heads},{size}"
        shapes.append(f"{port.any_name}[{shape}]")
    return Case(made, ("-data_shape", ",".join(shapes)))


CASES = {
    "cls": ocr_classifier,
    "det": ocr_detector,
    "vad": voice_activity,
    "tflite": pitch,
    "int8": int8,
    "llm": language_model,
}
MODES = {
    "throughput": ("-hint", "throughput"),
    "latency": ("-hint", "latency", "-api", "async", "-nireq", "1"),
    "sync": ("-hint", "latency", "-api", "sync"),
}


def measure(program: list[str], case: Case, options: tuple[str, ...]) -> dict[str, float]:
    """Throughput (frames/s) and median latency (ms) of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*program, "-m", str(case.model), *case.options, *options]
        command += ["-report_type", "no_counters", "-json_stats", "-report_folder", folder]
        done = subprocess.run(
            command, env=bench.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        report = json.loads((Path(folder) / "benchmark_report.json").read_text())
    results = report["execution_results"]
    return {
        "throughput": float(results["throughput"]),
        "latency": float(results["latency (ms)"]),
    }


def compare(name: str, mode: str, runs: int, seconds: int) -> dict[str, object]:
    case = CASES[name]()
    options = (*MODES[mode], "-t", str(seconds))
    ours = [str(bench.binary())]
    theirs = [str(Path(sys.executable).with_name("benchmark_app"))]
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for run in range(runs):
        # In turn, and each first as often as the other.
        order = [("ours", ours), ("theirs", theirs)]
        for side, program in order if run % 2 == 0 else reversed(order):
            samples[side].append(measure(program, case, options))
    ratios = {
        figure: [
            our[figure] / their[figure] if their[figure] else float("nan")
            for our, their in zip(samples["ours"], samples["theirs"], strict=True)
        ]
        for figure in ("throughput", "latency")
    }
    return {"model": name, "mode": mode, "samples": samples, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(CASES), help="which, separated by commas")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--runs", type=int, default=5, help="of each program")
    parser.add_argument("--seconds", type=int, default=3, help="that a run measures")
    parser.add_argument("--prepare", action="store_true", help="fetch and make the models only")
    parser.add_argument("--json", type=Path, help="file for all figures")
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    if arguments.prepare:
        for name in names:
            print(name, CASES[name]().model)
        return
    found = []
    print("| model | mode | throughput, ours / theirs | median latency, ours / theirs | FPS |")
    print("|---|---|---|---|---|")
    for name in names:
        for mode in arguments.modes.split(","):
            if name == "det" and mode == "sync":
                continue  # several shapes need the asynchronous mode
            one = compare(name, mode, arguments.runs, arguments.seconds)
            cells = [
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
                for ratios in one["ratios"].values()  # type: ignore[attr-defined]
            ]
            frames = statistics.median(s["throughput"] for s in one["samples"]["ours"])  # type: ignore[index]
            print(f"| {name} | {mode} | {cells[0]} | {cells[1]} | {frames:.1f} |", flush=True)
            found.append(one)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
