"""From a model of another framework to OpenVINO's form: ONNX, TensorFlow, TFLite, Paddle, PyTorch."""

from __future__ import annotations

import dataclasses
import sys
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovfast.convert.graph import Graph, Port
from ovfast.convert.input_options import Input
from ovfast.convert.verify import Verification
from ovfast.errors import ModelError

__all__ = ["ConvertResult", "Graph", "Input", "Port", "Verification", "convert"]


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did."""

    xml: Path
    """The written model; its weights lie beside it in a .bin."""
    source: str
    """Path, entry point or class of what was converted."""
    framework: str
    """onnx, tf, tflite, paddle, pytorch or ir."""
    source_bytes: int | None
    """Size of the source's files; None for an object."""
    bytes: int
    """Size of the .xml and the .bin."""
    read: Graph
    """The graph before steps on the data were put into it."""
    written: Graph
    """The graph that was written."""
    fp16: bool
    """Weights of f32 were rounded to f16."""
    verified: Verification | None
    """The comparison with the framework's runtime, if it was asked for."""
    seconds: float


def convert(
    source: Any,
    out: str | Path,
    *,
    inputs: Mapping[str, Input] | None = None,
    outputs: Sequence[str] = (),
    example_input: Any = None,
    fp16: bool = True,
    verify: bool = False,
    force: bool = False,
    progress: bool = True,
) -> ConvertResult:
    """Convert a model of another framework.

    Args:
        source: A file: .onnx, .pb (frozen graph), .tflite, .pdmodel, .pt (TorchScript), .pt2
            (exported program), .xml; the folder of a SavedModel; `module:function`, a function
            that returns a PyTorch module, alone or in a tuple with its example input; or a
            torch.nn.Module, ScriptModule or ExportedProgram.
        out: OUT.xml, with OUT.bin beside it, or a directory, which gets openvino_model.xml and .bin
            and the manifest ovfast.json. It appears whole or not at all.
        inputs: Shape, layout and steps on the data by the name of the input; the name "" stands for
            the only one. See `Input`; one that is marked `cut` lies inside of the model, which
            then begins there.
        outputs: Tensors that become the only outputs, wherever they lie; empty: the model's own.
        example_input: Of a PyTorch module: tensors to trace it with (a tensor, a tuple, or a
            dictionary by argument); without it the module is scripted. Of others: arrays by
            name for `verify`.
        fp16: Round weights of f32 to f16.
        verify: Compare one inference with the framework's own runtime before anything is
            written: onnxruntime, ai-edge-litert or tflite-runtime, torch.
        force: Replace a model that is there.
        progress: Show a bar on stderr if that is a terminal.

    Raises:
        ModelError: The source cannot be used; the message says why, and names operators that
            cannot be converted.
        ValueError: Options that contradict each other or the model, an output that exists.
        TypeError: The source is an object that is no model.
        Error: A package is missing, the comparison failed, or it could not be written.
    """
    from ovfast.convert.cut import cut
    from ovfast.convert.frontend import finish, read_graph, unconverted
    from ovfast.convert.graph import describe, name_ports
    from ovfast.convert.preprocess import match_inputs, preprocess, reshape
    from ovfast.convert.runtimes import require_runtime
    from ovfast.convert.source import recognise
    from ovfast.convert.torch_source import resolve
    from ovfast.convert.verify import verify as compare
    from ovfast.convert.write import check_out, write
    from ovfast.export.manifest import step
    from ovfast.progress import Bar

    start = time.perf_counter()
    out = Path(out).expanduser()
    inputs = dict(inputs or {})
    check_out(out, force=force)
    if any(name == "" and options.cut for name, options in inputs.items()):
        raise ValueError("a cut needs the name of a tensor")
    known = recognise(source)
    cutting = bool(outputs) or any(options.cut for options in inputs.values())
    if verify:
        if cutting:
            raise ValueError("verify compares whole models: it cannot be had together with cuts")
        require_runtime(known.framework)
    verification: list[Verification] = []

    def check(xml: Path) -> None:
        if verify:
            bar.show(0.7, "comparing with the original")
            verification.append(compare(xml, known, read.inputs, matched, example_input, fp16=fp16))

    def manifest() -> dict[str, Any]:
        options = {
            "inputs": {name: _given(option) for name, option in inputs.items()},
            "outputs": list(outputs),
            "fp16": fp16,
            "verified": dataclasses.asdict(verification[0]) if verification else None,
        }
        return {"source": known.describe(), "steps": [step("convert", ("openvino",), **options)]}

    with Bar(Path(known.name).name, progress) as bar:
        bar.show(0.0, "reading")
        if known.framework == "pytorch":
            known, example_input = resolve(known, example_input)
        # Named, since operations that were not converted point into the second.
        model, _input_model = read_graph(known, inputs, example_input, partly=cutting)
        name_ports(model)
        if cutting:
            model = cut(model, inputs, outputs)
            if left := unconverted(model):
                raise ModelError(
                    f"operations that OpenVINO cannot convert are left after the cut: {', '.join(left)}"
                )
        matched = match_inputs(model, inputs)
        reshape(model, matched)
        read = describe(model)
        bar.show(0.4, "simplifying")
        model = preprocess(model, matched)
        finish(model)
        bar.show(0.5, "writing")
        xml = write(model, out, fp16=fp16, force=force, describe=manifest, check=check)
    return ConvertResult(
        xml=xml,
        source=known.name,
        framework=known.framework,
        source_bytes=known.bytes if known.files else None,
        bytes=xml.stat().st_size + xml.with_suffix(".bin").stat().st_size,
        read=read,
        written=describe(model),
        fp16=fp16,
        verified=verification[0] if verification else None,
        seconds=time.perf_counter() - start,
    )


def _given(options: Input) -> dict[str, Any]:
    """Options that are not the default."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }


class _CallableModule(types.ModuleType):
    """`ovfast.convert` is the function and this package, as `ovfast.export` is."""

    def __call__(self, *arguments: Any, **options: Any) -> ConvertResult:
        return convert(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
