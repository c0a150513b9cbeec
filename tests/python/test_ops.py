"""ovfast's operations inside of OpenVINO's CPU plugin, through OpenVINO's own Python API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as opset
from openvino.utils.node_factory import NodeFactory

from ovfast import _core, ops

COLUMNS = 128
SHAPES = [(1, 1), (1, 40), (3, 2), (1, 0), (1, 300), (1, 1)]
"""Leading dimensions, one after the other on one compiled model."""

# Root mean square, relative. Int8 codes of a group of 32 normally distributed values are off by
# about 0.5 % of their size, bf16 values by 0.2 %; a gated MLP rounds twice and multiplies.
TOLERANCE = {"int8": 0.015, "exact": 1e-5}
# bf16 rounds what flows between operations.
BF16 = 0.004


class Weights:
    """A random 4-bit matrix: packed, and its values."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        groups = columns // 32
        codes = random.integers(0, 16, (rows, columns), dtype=np.uint8)
        points = random.integers(6, 10, (rows, groups), dtype=np.uint8)
        scales = (random.random((rows, groups), np.float32) + 1) / np.float32(5 * columns**0.5)
        self.packed = _core.pack_weights(codes, scales, points)
        centered = codes.reshape(rows, groups, 32).astype(np.float32) - points[:, :, None]
        self.values = (centered * scales[:, :, None]).reshape(rows, columns)

    @property
    def node(self) -> ov.Output:
        return opset.constant(self.packed).output(0)


def vector(size: int, seed: int, center: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, np.float32) / 4 + np.float32(center)


def normalized(x: np.ndarray, gamma: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(epsilon)) * gamma


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def factory() -> NodeFactory:
    made = NodeFactory()
    made.add_extension(str(ops.library_path()))
    return made


@pytest.fixture
def core() -> ov.Core:
    made = ov.Core()
    ops.register(made)
    return made


def fully_connected(factory: NodeFactory, activations: str) -> tuple[ov.Model, Any]:
    weights = Weights(200, COLUMNS, 1)
    gamma, bias = vector(COLUMNS, 2, center=1.0), vector(200, 3)
    x = opset.parameter([-1, -1, COLUMNS], np.float32, name="x")
    node = factory.create(
        "FullyConnected",
        [
            x.output(0),
            weights.node,
            opset.constant(gamma).output(0),
            opset.constant(bias).output(0),
        ],
        {
            "rows": 200,
            "columns": COLUMNS,
            "norm": True,
            "epsilon": 1e-5,
            "bias": True,
            "activations": activations,
        },
    )
    model = ov.Model([node.output(0)], [x], "fc")
    return model, lambda x: [normalized(x, gamma, 1e-5) @ weights.values.T + bias]


def qkv(factory: NodeFactory, activations: str) -> tuple[ov.Model, Any]:
    q, k, v = Weights(96, COLUMNS, 1), Weights(32, COLUMNS, 2), Weights(40, COLUMNS, 3)
    bias = vector(32, 4)
    x = opset.parameter([-1, -1, COLUMNS], np.float32, name="x")
    node = factory.create(
        "QKV",
        [x.output(0), q.node, k.node, v.node, opset.constant(bias).output(0)],
        {
            "columns": COLUMNS,
            "q_rows": 96,
            "k_rows": 32,
            "v_rows": 40,
            "biases": 2,
            "activations": activations,
        },
    )
    model = ov.Model([node.output(i) for i in range(3)], [x], "qkv")
    return model, lambda x: [x @ q.values.T, x @ k.values.T + bias, x @ v.values.T]


def gated_mlp(factory: NodeFactory, activations: str) -> tuple[ov.Model, Any]:
    gate, up = Weights(320, COLUMNS, 1), Weights(320, COLUMNS, 2)
    down = Weights(COLUMNS, 320, 3)
    gamma = vector(COLUMNS, 4, center=1.0)
    x = opset.parameter([-1, -1, COLUMNS], np.float32, name="x")
    node = factory.create(
        "GatedMLP",
        [
            *(x.output(0), gate.node, up.node, down.node),
            *(opset.constant(gamma).output(0), x.output(0)),
        ],
        {
            "columns": COLUMNS,
            "intermediate": 320,
            "rows": COLUMNS,
            "gate": "silu",
            "norm": True,
            "epsilon": 1e-6,
            "residual": True,
            "activations": activations,
        },
    )

    def expected(x: np.ndarray) -> list[np.ndarray]:
        n = normalized(x, gamma, 1e-6)
        return [(silu(n @ gate.values.T) * (n @ up.values.T)) @ down.values.T + x]

    return ov.Model([node.output(0)], [x], "mlp"), expected


@pytest.mark.parametrize("hint", ["f32", "bf16"])
@pytest.mark.parametrize("activations", ["int8", "exact"])
@pytest.mark.parametrize("build", [fully_connected, qkv, gated_mlp])
def test_on_the_cpu_plugin(
    build: Any, activations: str, hint: str, factory: NodeFactory, core: ov.Core, tmp_path: Path
) -> None:
    model, expected = build(factory, activations)
    # By way of a file: the plugin then sees what a program that reads a directory sees.
    ov.serialize(model, tmp_path / "model.xml")
    compiled = core.compile_model(
        core.read_model(tmp_path / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": hint}
    )
    before = ops.kernel_calls()
    random = np.random.default_rng(0)
    tolerance = max(TOLERANCE[activations], BF16 if hint == "bf16" else 0.0)
    for leading in SHAPES:
        x = random.standard_normal((*leading, COLUMNS), np.float32)
        got = compiled(x)
        for i, wanted in enumerate(expected(x)):
            assert got[i].shape == wanted.shape
            error = np.sqrt(np.square(got[i] - wanted).sum())
            assert error <= tolerance * np.sqrt(np.square(wanted).sum()), (leading, i)
    assert ops.kernel_calls() != before


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_embedding_on_the_cpu_plugin(factory: NodeFactory, core: ov.Core, dtype: Any) -> None:
    table = Weights(50, COLUMNS, 1)
    ids = opset.parameter([-1, -1], dtype, name="ids")
    node = factory.create(
        "Embedding", [ids.output(0), table.node], {"rows": 50, "columns": COLUMNS}
    )
    compiled = core.compile_model(
        ov.Model([node.output(0)], [ids], "embedding"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for wanted in ([[3]], [[0, 49, 3], [3, 3, 17]], np.arange(200).reshape(1, 200) % 50):
        got = compiled(np.array(wanted, dtype))[0]
        # The library fuses multiplication and addition.
        np.testing.assert_allclose(got, table.values[np.array(wanted)], rtol=1e-6, atol=1e-7)
    with pytest.raises(RuntimeError, match="id 50 at position 1 lies outside of the table's 50"):
        compiled(np.array([[1, 50]], dtype))


def test_one_copy_of_the_weights(factory: NodeFactory, core: ov.Core, tmp_path: Path) -> None:
    weights = Weights(8192, 4096, 1)
    x = opset.parameter([-1, 4096], np.float32, name="x")
    node = factory.create(
        "FullyConnected", [x.output(0), weights.node], {"rows": 8192, "columns": 4096}
    )
    ov.serialize(ov.Model([node.output(0)], [x], "big"), tmp_path / "model.xml")
    size = weights.packed.nbytes
    del node, weights
    before = _core.read_process_memory().rss_anon
    compiled = core.compile_model(core.read_model(tmp_path / "model.xml"), "CPU")
    compiled(np.ones((1, 4096), np.float32))
    # They stay in the mapped file; half their size is far more than all else takes.
    assert _core.read_process_memory().rss_anon - before < size / 2


def saved(factory: NodeFactory, folder: Path) -> Path:
    model, _ = fully_connected(factory, "int8")
    ov.serialize(model, folder / "model.xml")
    return folder / "model.xml"


def test_damaged_weights_are_refused(factory: NodeFactory, core: ov.Core, tmp_path: Path) -> None:
    xml = saved(factory, tmp_path)
    data = bytearray(xml.with_suffix(".bin").read_bytes())
    data[data.index(b"OVFPACK") + 5000] ^= 1
    xml.with_suffix(".bin").write_bytes(data)
    compiled = core.compile_model(core.read_model(xml), "CPU")
    with pytest.raises(RuntimeError, match="checksum differs"):
        compiled(np.ones((1, 1, COLUMNS), np.float32))

    data[data.index(b"OVFPACK") + 8] ^= 2  # the version of the layout
    xml.with_suffix(".bin").write_bytes(data)
    with pytest.raises(RuntimeError, match="no packed weights"):
        core.compile_model(core.read_model(xml), "CPU")


# OpenVINO alone, told of the library. Prints what came out.
FOREIGN = """
import sys
import numpy as np
import openvino as ov
core = ov.Core()
core.add_extension(sys.argv[1])
compiled = core.compile_model(sys.argv[2], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
compiled(np.ones((1, 1, 128), np.float32))[0].tofile(sys.argv[3])
assert not any(name.startswith("ovfast") for name in sys.modules)
assert "libovfast.so" not in open("/proc/self/maps").read()
"""


def run_foreign(xml: Path, out: Path, isa: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FOREIGN, str(ops.library_path()), str(xml), str(out)],
        env={**os.environ, "OVFAST_FORCE_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_program_that_knows_only_openvino(factory: NodeFactory, tmp_path: Path) -> None:
    xml = saved(factory, tmp_path)
    wanted = fully_connected(factory, "int8")[1](np.ones((1, 1, COLUMNS), np.float32))[0]
    for isa in ["", *ops.supported_isas()]:
        result = run_foreign(xml, tmp_path / "out", isa)
        assert result.returncode == 0, result.stderr
        got = np.fromfile(tmp_path / "out", np.float32).reshape(wanted.shape)
        error = np.sqrt(np.square(got - wanted).sum())
        assert error <= TOLERANCE["int8"] * np.sqrt(np.square(wanted).sum()), isa
    result = run_foreign(xml, tmp_path / "out", "sse9")
    assert result.returncode != 0
    assert "sse9" in result.stderr
    assert "scalar" in result.stderr


def test_what_is_there() -> None:
    assert ops.library_path().is_file()
    assert ops.supported_isas()[0] == "scalar"
    assert all(any(isa in name for isa in ("scalar", "avx", "amx")) for name in ops.kernel_calls())


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_packing_there_and_back(bits: int, groups: int) -> None:
    random = np.random.default_rng(bits)
    codes = random.integers(0, 2**bits, (21, 192), dtype=np.uint8)
    scales = random.standard_normal((21, groups), np.float32)
    points = random.integers(0, 2**bits, (21, groups), dtype=np.uint8)
    repeat = 192 // groups
    for zero_points in (None, points):
        got = _core.unpack_weights(_core.pack_weights(codes, scales, zero_points, bits=bits))
        zero = 2 ** (bits - 1) if zero_points is None else zero_points.repeat(repeat, 1)
        wanted = (codes.astype(np.float64) - zero) * scales.repeat(repeat, 1)
        # Offset and sum are rounded once each, and may cancel.
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=2.0**bits * 5 * 2**-23)


def test_packing_refuses() -> None:
    codes = np.full((2, 64), 3, np.uint8)
    scales = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="matrices with elements"):
        _core.pack_weights(codes[0], scales)
    with pytest.raises(ValueError, match=r"scales must have shape \(2, 2\), got \(3, 2\)"):
        _core.pack_weights(codes, np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"zero_points must have shape \(2, 2\), got \(2, 1\)"):
        _core.pack_weights(codes, scales, codes[:, :1])
    with pytest.raises(ValueError, match="64 columns of codes do not divide into the 3 groups"):
        _core.pack_weights(codes, np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="bits"):
        _core.pack_weights(codes, scales, bits=300)
    with pytest.raises(ValueError, match="code"):
        _core.pack_weights(codes + 13, scales)
    packed = _core.pack_weights(codes, scales)
    packed[100] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        _core.unpack_weights(packed)
