"""Models of other frameworks that contain our operations: imported, they give the framework's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from convert_models import write_frozen_swiglu

from ovfast import ops

ALPHA, EPSILON = 1.702, 3e-6


@pytest.fixture
def core() -> ov.Core:
    made = ov.Core()
    ops.register(made, gpu=False)
    return made


def values(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(4)
    return [random.standard_normal(shape, np.float32) for shape in shapes]


def run(core: ov.Core, model: ov.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    # The CPU would round to bf16 where it can.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(inputs).values())


def types(model: ov.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ops()]


# ---- ONNX: the domain "ovfast". onnxruntime runs the same model with the operation as a function.


def onnx_model(operation: str, body: list[Any], inputs: list[str], outputs: list[str]) -> Any:
    from onnx import TensorProto, helper

    attribute = {"SwiGLU": {"alpha": ALPHA}, "AddRMSNorm": {"epsilon": EPSILON}}[operation]
    ranks = {"gamma": 1}
    node = helper.make_node(operation, inputs, outputs, domain="ovfast", **attribute)
    after = helper.make_node("Relu", [outputs[0]], ["activated"])
    graph = helper.make_graph(
        [node, after],
        operation,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * ranks.get(name, 2))
            for name in inputs
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
            for name in ("activated", *outputs[1:])
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ovfast", 1)]
    function = helper.make_function(
        "ovfast", operation, inputs, outputs, body, opsets[:1], [*attribute]
    )
    plain = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    explained = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)
    return plain, explained


def constant(name: str, attribute: str) -> Any:
    from onnx import AttributeProto, helper

    node = helper.make_node("Constant", [], [name])
    reference = AttributeProto(
        name="value_float", ref_attr_name=attribute, type=AttributeProto.FLOAT
    )
    node.attribute.append(reference)
    return node


def compare_onnx(core: ov.Core, models: Any, inputs: dict[str, np.ndarray], path: Path) -> ov.Model:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    plain, explained = models
    onnx.save(plain, path)
    model = core.read_model(path)
    expected = runtime.InferenceSession(explained.SerializeToString()).run(None, inputs)
    found = run(core, model, [inputs[port.get_any_name()] for port in model.inputs])
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=2e-6, atol=2e-6)
    return model


def test_onnx_swiglu(core: ov.Core, tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx").helper
    body = [
        constant("factor", "alpha"),
        helper.make_node("Mul", ["gate", "factor"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["sigmoid"]),
        helper.make_node("Mul", ["scaled", "sigmoid"], ["silu"]),
        helper.make_node("Mul", ["silu", "up"], ["product"]),
    ]
    gate, up = values((3, 17), (3, 17))
    models = onnx_model("SwiGLU", body, ["gate", "up"], ["product"])
    model = compare_onnx(core, models, {"gate": gate, "up": up}, tmp_path / "m.onnx")
    assert "SwiGLU" in types(model)


def test_onnx_two_outputs(core: ov.Core, tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx").helper
    body = [
        constant("least", "epsilon"),
        helper.make_node("Add", ["x", "residual"], ["sum"]),
        helper.make_node("Mul", ["sum", "sum"], ["squares"]),
        helper.make_node("Constant", [], ["axes"], value_ints=[-1]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "least"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Div", ["sum", "root"], ["unit"]),
        helper.make_node("Mul", ["unit", "gamma"], ["normalized"]),
    ]
    x, residual, gamma = values((3, 17), (3, 17), (17,))
    models = onnx_model("AddRMSNorm", body, ["x", "residual", "gamma"], ["normalized", "sum"])
    inputs = {"x": x, "residual": residual, "gamma": gamma}
    model = compare_onnx(core, models, inputs, tmp_path / "m.onnx")
    assert "AddRMSNorm" in types(model)


def test_onnx_without_the_extension(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    plain, _ = onnx_model("SwiGLU", [], ["gate", "up"], ["product"])
    onnx.save(plain, tmp_path / "m.onnx")
    with pytest.raises(RuntimeError, match=r"ovfast\.SwiGLU"):
        ov.Core().read_model(tmp_path / "m.onnx")


# ---- PyTorch: an operator ovfast::NAME, or a module or autograd.Function that is mapped to one.


def test_torch_operator(core: ov.Core) -> None:
    torch = pytest.importorskip("torch")

    @torch.library.custom_op(
        "ovfast::SwiGLU",
        mutates_args=(),
        schema="(Tensor gate, Tensor up, float alpha) -> Tensor",
    )
    def swiglu(gate: torch.Tensor, up: torch.Tensor, alpha: float) -> torch.Tensor:
        x = gate * alpha
        return x * torch.sigmoid(x) * up

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up = torch.nn.Linear(8, 17), torch.nn.Linear(8, 17)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.ovfast.SwiGLU(self.gate(x), self.up(x), ALPHA)

    (x,) = values((3, 8))
    compare_torch(core, Model(), x)


def test_torch_autograd_function(core: ov.Core) -> None:
    torch = pytest.importorskip("torch")
    from openvino.frontend.pytorch import ModuleExtension

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, alpha: float) -> torch.Tensor:
            ctx.save_for_backward(gate, up)
            ctx.alpha = alpha
            x = gate * alpha
            return x * torch.sigmoid(x) * up

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:
            gate, up = ctx.saved_tensors
            x = gate * ctx.alpha
            sigmoid = torch.sigmoid(x)
            slope = sigmoid * (1 + x * (1 - sigmoid)) * ctx.alpha
            return gradient * up * slope, gradient * x * sigmoid, None

    class SwiGLU(torch.nn.Module):
        def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
            return Function.apply(gate, up, ALPHA)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up = torch.nn.Linear(8, 17), torch.nn.Linear(8, 17)
            self.swiglu = SwiGLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.swiglu(self.gate(x), self.up(x))

    inputs = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda g, u: Function.apply(g, u, ALPHA), inputs)
    extension = ModuleExtension(
        SwiGLU,
        "ovfast::SwiGLU",
        # What stands in while the model is traced, of the operation's inputs; and those inputs.
        evaluate=lambda module, gate, up, alpha: torch.zeros_like(gate),
        convert=lambda module, target, gate, up: target(gate, up, torch.tensor(ALPHA)),
    )
    (x,) = values((3, 8))
    compare_torch(core, Model(), x, [extension])


def compare_torch(core: ov.Core, module: Any, x: np.ndarray, more: list[Any] | None = None) -> None:
    import torch

    module.eval()
    example = torch.from_numpy(x)
    with torch.no_grad():
        expected = module(example).numpy()
    extensions = [str(ops.library_path()), *(more or [])]
    model = ov.convert_model(module, example_input=example, extension=extensions)
    assert "SwiGLU" in types(model)
    np.testing.assert_allclose(run(core, model, [x])[0], expected, rtol=2e-5, atol=2e-6)


# ---- TensorFlow: the operation's type. TensorFlow has no such operation, so NumPy is the oracle.


def test_tensorflow(core: ov.Core, tmp_path: Path) -> None:
    model = core.read_model(write_frozen_swiglu(tmp_path / "frozen.pb", 17, ALPHA))
    assert "SwiGLU" in types(model)
    gate, up = values((3, 17), (3, 17))
    named = {"gate": gate, "up": up}
    inputs = [named[port.get_any_name().partition(":")[0]] for port in model.inputs]
    x = gate.astype(np.float64) * ALPHA
    expected = np.maximum(x / (1 + np.exp(-x)) * up, 0)
    np.testing.assert_allclose(run(core, model, inputs)[0], expected, rtol=2e-6, atol=2e-6)
