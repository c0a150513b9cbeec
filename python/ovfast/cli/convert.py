"""`ovfast convert`: a model of another framework -> OpenVINO's form."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ovfast.convert import ConvertResult, Graph, Input

__all__ = ["convert_command", "parse_inputs"]

_EPILOG = """\b
Examples:
  ovfast convert model.onnx -o model.xml
  ovfast convert saved_model_dir -o model-dir --input "image[1,224,224,3]"
  ovfast convert detector.onnx -o detector.xml --input "[1,3,?,1..640]" --verify
  ovfast convert classifier.onnx -o classifier.xml --layout NCHW --data-layout NHWC
      --data-type u8 --mean 124,116,104 --scale 58.4,57.1,57.4 --reverse-channels
  ovfast convert model.onnx -o head.xml --cut-input "features[1,512]" --cut-output logits
  ovfast convert my_package.models:build -o model-dir
"""

_NAMED = re.compile(r"(?P<name>.*)\[(?P<value>[^\[\]]*)\](?::(?P<type>\w+))?", re.DOTALL)
_HEAD = ("", "name", "type", "shape", "layout")


def _per_input(
    *names: str, metavar: str, help: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(*names, multiple=True, metavar=metavar, help=help)


@click.command("convert", epilog=_EPILOG)
@click.argument("source")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT",
    help="OUT.xml, with OUT.bin beside it, or a directory.",
)
@_per_input("--input", "shapes", metavar="NAME[SHAPE]", help="Shape of an input: 1,3,?,1..640.")
@_per_input("--cut-input", "cuts", metavar="NAME[SHAPE][:TYPE]", help="Begin at this tensor.")
@_per_input("--cut-output", "outputs", metavar="NAME", help="End at this tensor.")
@_per_input("--layout", "layouts", metavar="NAME[NCHW]", help="The model's dimensions.")
@_per_input("--data-layout", "data_layouts", metavar="NAME[NHWC]", help="The data's dimensions.")
@_per_input("--data-type", "data_types", metavar="NAME[u8]", help="Element type of the data.")
@_per_input("--mean", "means", metavar="NAME[M,M,M]", help="Subtracted; one or one a channel.")
@_per_input("--scale", "scales", metavar="NAME[S,S,S]", help="Divides; one or one a channel.")
@_per_input("--resize", "resizes", metavar="NAME[HOW]", help="Data of any size: linear, ...")
@click.option(
    "--reverse-channels",
    is_flag=True,
    help="The data of inputs with a layout has BGR for RGB, or the other way round.",
)
@click.option("--no-fp16", is_flag=True, help="Keep weights of f32 as they are.")
@click.option("--verify", is_flag=True, help="Compare one inference with the framework's runtime.")
@click.option(
    "--example",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Arrays by input name for --verify, instead of random ones.",
)
@click.option("--force", is_flag=True, help="Replace a model that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def convert_command(
    source: str,
    out: Path,
    outputs: tuple[str, ...],
    no_fp16: bool,
    verify: bool,
    example: Path | None,
    force: bool,
    as_json: bool,
    no_progress: bool,
    **per_input: Any,
) -> None:
    """Convert SOURCE to OpenVINO's form.

    SOURCE is a file of ONNX (.onnx), TensorFlow (.pb, frozen), TensorFlow Lite (.tflite),
    PaddlePaddle (.pdmodel), PyTorch (.pt: TorchScript, .pt2: exported program) or OpenVINO (.xml),
    the folder of a SavedModel, or module:function, a function that returns a PyTorch module,
    alone or in a tuple with its example input.

    Options with NAME are repeatable; a model with one input needs no name (--layout NCHW). The
    data goes through its steps in this order: type, resize, reverse channels, mean, scale, layout;
    mean and scale are in the model's order of channels.
    """
    from ovfast.convert import convert

    try:
        inputs = parse_inputs(**per_input)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if example is not None and not verify:
        raise click.UsageError("--example is for --verify")
    result = convert(
        source,
        out,
        inputs=inputs,
        outputs=outputs,
        example_input=_read_example(example) if example else None,
        fp16=not no_fp16,
        verify=verify,
        force=force,
        progress=not no_progress,
    )
    if as_json:
        fields = dataclasses.asdict(result)
        click.echo(json.dumps({**fields, "xml": str(result.xml)}))
        return
    _print(result)


def parse_inputs(
    *,
    shapes: Sequence[str] = (),
    cuts: Sequence[str] = (),
    layouts: Sequence[str] = (),
    data_layouts: Sequence[str] = (),
    data_types: Sequence[str] = (),
    means: Sequence[str] = (),
    scales: Sequence[str] = (),
    resizes: Sequence[str] = (),
    reverse_channels: bool = False,
) -> dict[str, Input]:
    """Collect the options of the command line by input.

    Raises ValueError for one that cannot be read or contradicts another.
    """
    from ovfast.convert import Input

    fields: dict[str, dict[str, Any]] = {}

    def put(name: str, field: str, value: Any) -> None:
        options = fields.setdefault(name, {})
        if field in options:
            raise ValueError(f"two values of {field} for the input '{name}'")
        options[field] = value

    for text in cuts:
        found = _NAMED.fullmatch(text)
        name = found["name"] if found else text
        put(name, "cut", True)
        if found:
            put(name, "shape", found["value"])
        if found and found["type"]:
            put(name, "type", found["type"])
    texts = {"shape": shapes, "layout": layouts, "data_layout": data_layouts}
    for field, given in {**texts, "data_type": data_types, "resize": resizes}.items():
        for text in given:
            name, value = _split(text, field)
            put(name, field, value)
    for field, given in (("mean", means), ("scale", scales)):
        for text in given:
            name, value = _split(text, field)
            try:
                put(name, field, [float(number) for number in value.split(",")])
            except ValueError as error:
                raise ValueError(f"'{text}' is no {field}: {error}") from error
    if reverse_channels:
        with_layout = [name for name, options in fields.items() if "layout" in options]
        if not with_layout:
            raise ValueError(
                "--reverse-channels needs the model's layout, for example --layout NCHW"
            )
        for name in with_layout:
            put(name, "reverse_channels", True)
    if "" in fields and len(fields) > 1:
        # What has no name is for the only input, so it is for the one that is named elsewhere.
        unnamed = fields.pop("")
        name, *others = fields
        if others:
            raise ValueError(f"several inputs are named ({', '.join(fields)}): name one everywhere")
        for field, value in unnamed.items():
            put(name, field, value)
    return {name: Input(**options) for name, options in fields.items()}


def _split(text: str, field: str) -> tuple[str, str]:
    found = _NAMED.fullmatch(text)
    if found is None:
        return "", text
    if found["type"]:
        raise ValueError(
            f"'{text}': a type belongs to --cut-input or --data-type, not to a {field}"
        )
    return found["name"], found["value"]


def _read_example(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"'{path}' is not a .npz file of arrays: {error}") from error


def _print(result: ConvertResult) -> None:
    from ovfast.convert.source import FRAMEWORKS

    size = f", {_size(result.source_bytes)}" if result.source_bytes is not None else ""
    click.echo(
        f"Read {result.source} ({FRAMEWORKS[result.framework]}{size}): "
        f"{result.read.operations} operations"
    )
    _print_ports(result.read)
    weights = "f32 weights as f16" if result.fp16 else "weights as they were"
    click.echo(
        f"\nWrote {result.xml} ({_size(result.bytes)}, {weights}) in {result.seconds:.1f} s: "
        f"{result.written.operations} operations"
    )
    _print_ports(result.written)
    if result.verified is not None:
        found = result.verified
        click.echo(
            f"\nSame as {found.runtime}: outputs differ by at most {found.difference:.1e} of their "
            f"largest value (allowed: {found.tolerance:g})."
        )


def _print_ports(graph: Graph) -> None:
    rows = [_HEAD]
    for kind, ports in (("input", graph.inputs), ("output", graph.outputs)):
        rows += [(kind, port.name, port.type, port.shape, port.layout or "") for port in ports]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        texts = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        click.echo(f"  {'  '.join(texts)}".rstrip())


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
