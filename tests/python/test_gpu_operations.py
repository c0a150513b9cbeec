"""ovfast's OpenCL kernels inside of OpenVINO's own GPU plugin, on an emulated GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu_emulation import EmulatedGpu, emulated_gpu

from ovfast import gpu, kernels, ops
from ovfast.opencl import kernel_source
from ovfast.scaffold import new_operation


@pytest.fixture(scope="module")
def device() -> EmulatedGpu:
    return emulated_gpu()


@pytest.fixture
def own_kernels(tmp_path: Path) -> Path:
    """A copy of ovfast's kernels to be broken."""
    target = tmp_path / "opencl"
    shutil.copytree(ops.kernel_config().parent, target)
    return target


def test_doctor_finds_every_kernel_right_in_the_plugins_graph(device: EmulatedGpu) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ovfast", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=device.variables(),
        check=False,
    )
    checks = {one["name"]: one for one in json.loads(result.stdout)["checks"]}
    assert checks["gpu kernels"]["status"] == "ok", checks["gpu kernels"]
    kernels = checks["gpu kernels"]["data"]
    assert list(kernels) == ["SwiGLU", "AddRMSNorm", "Int4MatMul"]
    for one in kernels.values():
        # Both types ran, and neither compared nothing with nothing.
        assert 0 < one["worst"]["f32"] < 2e-6 and 0 < one["worst"]["f16"] < 2e-3


def test_subgroup_kernel_with_subgroups_shown(device: EmulatedGpu) -> None:
    # The plugin's own kernels are wrong in this mode; ours is alone in its graph.
    config = str(ops.kernel_config())
    result = device.run("check_with", config, "Int4MatMul", OVFAST_EMULATED_SUBGROUPS="1")
    assert result["passed"], result["summary"]


def test_inputs_that_are_parts_of_a_tensor(device: EmulatedGpu) -> None:
    assert device.run("split_inputs") < 1e-6


@pytest.mark.parametrize(
    ("file", "old", "new", "operation"),
    [
        ("swiglu.cl", "1.0f + exp(-x)", "1.1f + exp(-x)", "SwiGLU"),
        ("add_rms_norm.cl", "mean + OVFAST_FLOAT(EPSILON_BITS)", "mean", "AddRMSNorm"),
        ("int4_matmul.cl", "pair.x >> 4, pair.y & 15", "pair.y & 15, pair.x >> 4", "Int4MatMul"),
    ],
)
def test_a_changed_kernel_is_found_out(
    device: EmulatedGpu, own_kernels: Path, file: str, old: str, new: str, operation: str
) -> None:
    source = own_kernels / file
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    result = device.run("check_with", str(own_kernels / "ovfast_ops.xml"), operation)
    assert not result["passed"]
    assert "wrong numbers" in result["summary"]


def test_a_kernel_that_does_not_compile_gives_the_compilers_words(
    device: EmulatedGpu, own_kernels: Path
) -> None:
    source = own_kernels / "swiglu.cl"
    source.write_text(source.read_text().replace("const float x =", "const flaot x ="))
    result = device.run("check_with", str(own_kernels / "ovfast_ops.xml"), "SwiGLU")
    assert not result["passed"]
    assert "swiglu.cl: the OpenCL compiler refuses the kernel" in result["summary"]
    assert "flaot" in result["summary"]


def test_scaffold_builds_and_passes_on_the_gpu(device: EmulatedGpu, tmp_path: Path) -> None:
    folder = new_operation("SoftClip", tmp_path / "soft_clip")
    check = folder / "check.py"
    check.write_text(
        check.read_text().replace("(3, 5), (2, 3, 17), ", "")
    )  # minutes of nothing new
    result = device.run("check_folder", str(folder))
    assert result["passed"], result["summary"]


@pytest.mark.parametrize("standard", ["CL2.0", "CL3.0"])
@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("operation", gpu.OPERATIONS, ids=lambda one: one.name)
def test_kernels_run_without_openvino(
    device: EmulatedGpu, operation: gpu.Operation, kind: str, standard: str
) -> None:
    layer = next(
        one for one in kernels.read_kernels(ops.kernel_config()) if one.operation == operation.name
    )
    case = operation.cases[2]
    dtype = np.dtype(np.float16 if kind == "f16" else np.float32)
    random = np.random.default_rng(3)
    make = operation.make_inputs
    inputs = (
        make(case, random)
        if make
        else [random.standard_normal(shape, np.float32) for shape in case.shapes]
    )
    inputs = [value if value.dtype == np.uint8 else value.astype(dtype) for value in inputs]
    wide = [value if value.dtype == np.uint8 else value.astype(np.float64) for value in inputs]
    expected = operation.expected(wide, case.attributes)
    bits = {
        f"{name}_bits": int(np.float32(value).view(np.uint32))
        for name, value in case.attributes.items()
    }
    source = kernel_source(
        layer,
        [("u8" if value.dtype == np.uint8 else kind, value.shape) for value in inputs],
        [(kind, value.shape) for value in expected],
        {**case.attributes, **bits},
    )
    values = expected[0].size
    sizes = {
        "SwiGLU": [[values], []],
        "AddRMSNorm": [[-(-values // 64) * 64], [64]],
        "Int4MatMul": [[values * 16], [16]],
    }[operation.name]
    arrays = [
        {"dtype": str(value.dtype), "shape": value.shape, "values": value.tolist()}
        for value in inputs
    ]
    arrays += [{"dtype": str(dtype), "shape": value.shape} for value in expected]
    results = device.run_opencl("run", source, f"-cl-std={standard}", layer.entry, sizes, arrays)
    tolerance = 2e-6 if kind == "f32" else 2e-3
    for found, wanted in zip(results, expected, strict=True):
        error = np.abs(np.array(found) - wanted.ravel()).max() / np.abs(wanted).max()
        assert error < tolerance
