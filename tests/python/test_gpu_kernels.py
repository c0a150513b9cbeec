"""XML files of GPU kernels: what is wrong is said before the plugin sees it. Needs no GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as opset
from openvino.utils.node_factory import NodeFactory

from ovfast import ops
from ovfast.errors import Error, ModelError
from ovfast.kernels import check_model, joined, read_kernels
from ovfast.scaffold import check_folder, new_operation


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copytree(ops.kernel_config().parent, tmp_path / "opencl")
    return tmp_path / "opencl" / "ovfast_ops.xml"


def test_own_kernels_are_in_order() -> None:
    layers = {layer.operation: layer for layer in read_kernels(ops.kernel_config())}
    assert list(layers) == ["SwiGLU", "AddRMSNorm", "Int4MatMul"]
    assert (layers["AddRMSNorm"].inputs, layers["AddRMSNorm"].outputs) == (3, 2)
    assert layers["Int4MatMul"].options == "-cl-std=CL3.0"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</Kernel>", "<Kernel>", "is no XML: mismatched tag"),
        (
            'filename="swiglu.cl"',
            'filename="none.cl"',
            r"layer SwiGLU: there is no source file '.*none",
        ),
        ('entry="ovfast_swiglu"', 'entry="swiglue"', "no function named 'swiglue'"),
        (
            'type="output" port-index="0"',
            'type="output" port-index="1"',
            "port-index of outputs must",
        ),
        ('arg-index="1"', 'arg-index="7"', "arg-index must count from 0 without gaps"),
        ('port-index="1"', 'port-index="one"', "Tensor needs port-index, a number"),
        ('type="input"', 'type="inout"', "type of a Tensor must be input or output, got 'inout'"),
        ('format="BFYX"', 'format="NCHW"', "format of a Tensor must be of .*, got NCHW"),
        ('type="SimpleGPU"', 'type="GPU"', "type must be SimpleGPU, got GPU"),
        ('name="AddRMSNorm"', 'name="SwiGLU"', "2 layers named SwiGLU"),
        ('<WorkSizes global="B*F*Y*X"/>', "", "WorkSizes with a global size is needed"),
        ('global="B*F*Y*X"', 'global="N*C"', "'N\\*C' is no expression of B, F, Y, X"),
        ('global="B*F*Y*X"', 'global="B" dim="input 0"', "must be output or input,N"),
        ("<Buffers>", "<Bufers>", "is no XML"),
        ("CompilerOptions", "Options", "expected elements among .*, got Options"),
    ],
)
def test_faults_in_xml(config: Path, old: str, new: str, message: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=message):
        read_kernels(config)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read_kernels(tmp_path / "none.xml")


def test_an_element_around_the_layers(tmp_path: Path, config: Path) -> None:
    config.write_text(f"<Layers>{config.read_text()}</Layers>")
    with pytest.raises(ModelError, match="expected CustomLayer elements side by side, got Layers"):
        read_kernels(config)


def test_kernels_of_several_files_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    folder = new_operation("SoftClip", tmp_path / "soft_clip")
    both = joined([ops.kernel_config(), folder / "soft_clip.xml"])
    names = [layer.operation for layer in read_kernels(both)]
    assert names == ["SwiGLU", "AddRMSNorm", "Int4MatMul", "SoftClip"]
    assert joined([ops.kernel_config(), folder / "soft_clip.xml"]) == both
    with pytest.raises(ModelError, match="both have a kernel for SoftClip"):
        shutil.copytree(folder, tmp_path / "again")
        joined([folder / "soft_clip.xml", tmp_path / "again" / "soft_clip.xml"])


def swiglu(shape: list[int], dtype: type = np.float32) -> ov.Model:
    factory = NodeFactory()
    factory.add_extension(str(ops.library_path()))
    inputs = [opset.parameter(shape, dtype) for _ in range(2)]
    node = factory.create("SwiGLU", [one.output(0) for one in inputs], {"alpha": 1.0})
    return ov.Model([node.output(0)], inputs)


def test_models_for_the_gpu() -> None:
    layers = read_kernels(ops.kernel_config())
    assert check_model(swiglu([2, 3]), layers) == 1
    with pytest.raises(ValueError, match="SwiGLU .* input 0 has unknown rank"):
        model = swiglu([2, 3])
        model.reshape({i: ov.PartialShape.dynamic() for i in range(2)})
        check_model(model, layers)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ([1, 2, 3, 4, 5], np.float32, "gate .* must have rank 1 to 4"),
        ([], np.float32, "gate .* must have rank 1 to 4"),
        ([2, 3], np.int32, "gate .* must be f32 or f16, got i32"),
    ],
)
def test_operations_refuse_what_no_kernel_takes(
    shape: list[int], dtype: type, message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        swiglu(shape, dtype)


def test_two_outputs_need_a_dynamic_shape() -> None:
    factory = NodeFactory()
    factory.add_extension(str(ops.library_path()))

    def model(rows: int) -> ov.Model:
        inputs = [opset.parameter([rows, 8], np.float32) for _ in range(2)]
        gamma = opset.constant(np.ones(8, np.float32))
        node = factory.create(
            "AddRMSNorm",
            [inputs[0].output(0), inputs[1].output(0), gamma.output(0)],
            {"epsilon": 1e-6},
        )
        return ov.Model([node.output(0), node.output(1)], inputs)

    layers = read_kernels(ops.kernel_config())
    assert check_model(model(-1), layers) == 1
    with pytest.raises(
        ValueError, match="it has 2 outputs, which the GPU plugin takes only where a"
    ):
        check_model(model(3), layers)


def test_a_port_too_few(config: Path) -> None:
    text = config.read_text()
    line = '    <Tensor arg-index="1" type="input" port-index="1" format="BFYX"/>\n'
    text = text.replace(line, "", 1).replace(
        'arg-index="2" type="output"', 'arg-index="1" type="output"', 1
    )
    config.write_text(text)
    with pytest.raises(
        ValueError, match="has 2 inputs, its kernel ovfast_swiglu has Tensors for 1"
    ):
        check_model(swiglu([2, 3]), read_kernels(config))


def test_scaffold_passes_as_it_is_and_fails_when_changed(tmp_path: Path) -> None:
    folder = new_operation("MyHTTPNorm2", tmp_path / "new" / "folder")
    assert (folder / "my_http_norm2.cpp").is_file()
    result = check_folder(folder)
    assert result.passed, result.summary
    source = folder / "my_http_norm2.cpp"
    source.write_text(source.read_text().replace("1.0F + alpha", "1.0F - alpha"))
    assert "wrong numbers" in check_folder(folder).summary
    source.write_text(source.read_text() + "not C++")
    with pytest.raises(Error, match="cannot be built:"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("softClip", ValueError, "expected CamelCase"),
        ("Soft-Clip", ValueError, "expected CamelCase"),
        ("SwiGLU", ValueError, "ovfast has an operation SwiGLU itself"),
        ("Taken", FileExistsError, "is there already and holds something"),
    ],
)
def test_scaffold_refusals(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    (tmp_path / "Taken").mkdir()
    (tmp_path / "Taken" / "file").touch()
    with pytest.raises(error, match=message):
        new_operation(name, tmp_path / name)
    assert (tmp_path / "Taken" / "file").exists()
