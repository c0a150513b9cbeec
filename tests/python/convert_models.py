"""Small models of other frameworks, made here, and how to run what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CLASSES = 5


def write_onnx_convnet(path: Path, height: int | str = "h", width: int | str = "w") -> Path:
    """Write image [n, 3, height, width] -> features [n, 4, height, width] -> logits [n, CLASSES]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(7)
    weights = {
        "kernel": random.standard_normal((4, 3, 3, 3)),
        "bias": random.standard_normal(4),
        "dense": random.standard_normal((4, CLASSES)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["features"]),
        helper.make_node("ReduceMean", ["features"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["pooled", "dense"], ["logits"]),
    ]
    shapes = {"image": ["n", 3, height, width], "logits": ["n", CLASSES]}
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    constants = [
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "convnet", [image], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def write_onnx_custom(path: Path) -> Path:
    """Write x [n, 3] -> com.my.First -> first -> com.my.Second -> second -> * 2 -> y."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("First", ["x"], ["first"], domain="com.my"),
        helper.make_node("Second", ["first"], ["second"], domain="com.my"),
        helper.make_node("Mul", ["second", "two"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    two = numpy_helper.from_array(np.full((1, 1), 2, np.float32), "two")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.my", 1)]
    graph = helper.make_graph(nodes, "custom", [x], [y], [two])
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


def write_onnx_add(path: Path, element_type: str = "FLOAT") -> Path:
    """Write sum = a [n, 2] + b [n, 2], and unused = a - a."""
    import onnx
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, element_type)
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", "aa", ["zero"])]
    ports = [helper.make_tensor_value_info(n, kind, ["n", 2]) for n in ("a", "b", "sum", "zero")]
    graph = helper.make_graph(nodes, "add", ports[:2], ports[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def run_onnx(path: Path, **data: Array) -> list[Array]:
    """Run a model with ONNX's own reference implementation."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(str(path)).run(None, data))


def run_ir(xml: Path, *data: Array, **named: Array) -> list[Array]:
    """Run a converted model in f32."""
    import openvino as ov

    compiled = ov.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.asarray(value) for value in compiled(named or list(data)).values()]


# TensorFlow is too large to be had for this, and its format is simple: protobuf's field numbers stand
# in its graph.proto, node_def.proto, attr_value.proto and tensor.proto.


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    head = b""
    while number > 127:
        head += bytes([number & 127 | 128])
        number >>= 7
    return head + bytes([number])


def _field(number: int, content: int | str | bytes) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _shape(sizes: Sequence[int]) -> bytes:
    return b"".join(_field(2, _field(1, size)) for size in sizes)


def _node(name: str, operation: str, inputs: Sequence[str], **attributes: bytes) -> bytes:
    content = _field(1, name) + _field(2, operation)
    content += b"".join(_field(3, name) for name in inputs)
    for key, value in attributes.items():
        content += _field(5, _field(1, key) + _field(2, value))
    return _field(1, content)


def write_frozen_graph(path: Path, weight: Array) -> Path:
    """Write TensorFlow's y = relu(x @ weight) with x [?, rows]."""
    as_float = _field(6, 1)  # DT_FLOAT
    tensor = _field(1, 1) + _field(2, _shape(weight.shape)) + _field(4, weight.tobytes())
    open_shape = _field(7, _shape([-1, weight.shape[0]]))
    graph = _node("x", "Placeholder", [], dtype=as_float, shape=open_shape)
    graph += _node("weight", "Const", [], dtype=as_float, value=_field(8, tensor))
    graph += _node("product", "MatMul", ["x", "weight"], T=as_float)
    graph += _node("y", "Relu", ["product"], T=as_float)
    path.write_bytes(graph)
    return path


def write_frozen_swiglu(path: Path, columns: int, alpha: float) -> Path:
    """Write relu(SwiGLU(gate, up)) with inputs [?, columns]: an operation that TensorFlow lacks."""
    as_float = _field(6, 1)  # DT_FLOAT
    open_shape = _field(7, _shape([-1, columns]))
    number = _varint(4 << 3 | 5) + np.float32(alpha).tobytes()  # AttrValue.f
    graph = _node("gate", "Placeholder", [], dtype=as_float, shape=open_shape)
    graph += _node("up", "Placeholder", [], dtype=as_float, shape=open_shape)
    graph += _node("product", "SwiGLU", ["gate", "up"], T=as_float, alpha=number)
    graph += _node("y", "Relu", ["product"], T=as_float)
    path.write_bytes(graph)
    return path
