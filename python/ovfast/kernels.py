"""XML files that tell OpenVINO's GPU plugin of OpenCL kernels: read, judged and joined.

The plugin says little about what is wrong with one, some of it not before a model is compiled, and
"Failed to create plugin for device GPU" first. What is said here names file, layer and element.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from ovfast.cache import cache_dir
from ovfast.errors import ModelError

__all__ = ["Define", "KernelLayer", "Tensor", "check_model", "joined", "read_kernels"]

_FORMATS = {"BFYX", "BYXF", "FYXB", "YXFB", "ANY"}
_DEFINE_TYPES = {"", "int", "float", "string", "int[]", "float[]"}
_KNOWN = {"Kernel", "Buffers", "CompilerOptions", "WorkSizes"}
_RULE = re.compile(r"[BFYXbfyx0-9+\-*/%() ]+")
_TYPES = {"f32", "f16", "bf16", "i8", "u8", "i32", "i64"}


@dataclass(frozen=True)
class Tensor:
    """An argument of a kernel: an input or output of its operation."""

    argument: int
    kind: str
    """'input' or 'output'."""
    port: int


@dataclass(frozen=True)
class Define:
    """A macro that carries an attribute of the operation."""

    name: str
    attribute: str
    default: str


@dataclass(frozen=True)
class KernelLayer:
    """A kernel, and the operations that it is for."""

    operation: str
    """The type of the operation, 'SwiGLU'."""
    entry: str
    sources: tuple[Path, ...]
    tensors: tuple[Tensor, ...]
    defines: tuple[Define, ...]
    options: str
    global_size: str
    local_size: str
    element: ET.Element

    @property
    def inputs(self) -> int:
        """Inputs that the kernel takes."""
        return sum(tensor.kind == "input" for tensor in self.tensors)

    @property
    def outputs(self) -> int:
        """Outputs that the kernel writes."""
        return sum(tensor.kind == "output" for tensor in self.tensors)

    def source(self) -> str:
        """Return the text of all source files."""
        return "\n".join(path.read_text(encoding="utf-8") for path in self.sources)


def read_kernels(config: str | Path) -> list[KernelLayer]:
    """Read and check an XML file for the property CONFIG_FILE of OpenVINO's GPU plugin.

    Raises ModelError that names the file, the layer and the element at fault: XML that is none, a
    missing source file, an entry that no source has, ports and arguments that leave gaps, work sizes
    that cannot be evaluated.
    """
    path = Path(config)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ModelError(f"the kernel configuration '{path}' cannot be read: {reason}") from error
    # The plugin wants layers side by side, which XML does not allow at the top.
    declaration = re.match(r"\s*<\?xml.*?\?>", text, re.DOTALL)
    body = text[declaration.end() :] if declaration else text
    try:
        root = ET.fromstring(f"<layers>{body}</layers>")
    except ET.ParseError as error:
        raise ModelError(f"the kernel configuration '{path}' is no XML: {error}") from error
    if len(root) == 0:
        raise ModelError(f"the kernel configuration '{path}' has no CustomLayer")
    layers = [_layer(element, path) for element in root]
    names = [layer.operation for layer in layers]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"'{path}' has {names.count(name)} layers named {name}, expected one")
    return layers


def _layer(element: ET.Element, path: Path) -> KernelLayer:
    def fail(message: str) -> ModelError:
        return ModelError(f"'{path}', {where}: {message}")

    def number(of: ET.Element, attribute: str) -> int:
        try:
            value = int(of.get(attribute, ""))
        except ValueError:
            value = -1
        if value < 0:
            raise fail(f"{of.tag} needs {attribute}, a number of at least 0, got {of.attrib}")
        return value

    where = "at the top"
    if element.tag != "CustomLayer":
        raise fail(
            f"expected CustomLayer elements side by side, got {element.tag} (the plugin allows no "
            "element around them)"
        )
    name = element.get("name", "")
    where = f"layer {name or '?'}"
    for attribute, wanted in (("type", "SimpleGPU"), ("version", "1")):
        if element.get(attribute) != wanted:
            raise fail(f"{attribute} must be {wanted}, got {element.get(attribute)}")
    if not name:
        raise fail("CustomLayer needs a name, the type of its operation")
    for child in element:
        if child.tag not in _KNOWN:
            raise fail(f"expected elements among {', '.join(sorted(_KNOWN))}, got {child.tag}")
        if len(element.findall(child.tag)) > 1:
            raise fail(f"{child.tag} is there {len(element.findall(child.tag))} times")
    kernel, buffers = element.find("Kernel"), element.find("Buffers")
    if kernel is None or buffers is None:
        raise fail("expected a Kernel and Buffers")

    sources = []
    for source in kernel.findall("Source"):
        file = path.parent / source.get("filename", "")
        if not source.get("filename") or not file.is_file():
            raise fail(f"there is no source file '{file}'")
        sources.append(file)
    if not sources:
        raise fail("Kernel needs a Source")
    entry = kernel.get("entry", "")
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in sources)
    if not entry or not re.search(rf"\b{re.escape(entry)}\s*\(", text):
        raise fail(
            f"no function named '{entry}' (the Kernel's entry) in "
            f"{', '.join(file.name for file in sources)}"
        )
    defines = []
    for define in kernel.findall("Define"):
        if not define.get("name"):
            raise fail("Define needs a name")
        if define.get("type", "") not in _DEFINE_TYPES:
            known = ", ".join(sorted(filter(None, _DEFINE_TYPES)))
            raise fail(
                f"Define {define.get('name')}: type must be of {known}, got {define.get('type')}"
            )
        defines.append(
            Define(define.get("name", ""), define.get("param", ""), define.get("default", ""))
        )

    tensors = []
    for tensor in buffers.findall("Tensor"):
        kind, layout = tensor.get("type", ""), tensor.get("format", "BFYX")
        if kind not in ("input", "output"):
            raise fail(f"type of a Tensor must be input or output, got '{kind}'")
        if layout.upper() not in _FORMATS:
            raise fail(f"format of a Tensor must be of {', '.join(sorted(_FORMATS))}, got {layout}")
        tensors.append(Tensor(number(tensor, "arg-index"), kind, number(tensor, "port-index")))
    arguments = sorted(
        [tensor.argument for tensor in tensors]
        + [number(data, "arg-index") for data in buffers.findall("Data")]
    )
    if arguments != list(range(len(arguments))):
        raise fail(f"arg-index must count from 0 without gaps, got {arguments}")
    for kind in ("input", "output"):
        ports = sorted(tensor.port for tensor in tensors if tensor.kind == kind)
        if ports != list(range(len(ports))):
            raise fail(f"port-index of {kind}s must count from 0 without gaps, got {ports}")
    if not any(tensor.kind == "output" for tensor in tensors):
        raise fail("Buffers need a Tensor of type output")

    sizes = element.find("WorkSizes")
    if sizes is None or not sizes.get("global"):
        raise fail("WorkSizes with a global size is needed (graphs of dynamic shape fail without)")
    for attribute in ("global", "local"):
        rules = sizes.get(attribute, "").split(",") if sizes.get(attribute) else []
        if len(rules) > 3:
            raise fail(f"{attribute} of WorkSizes has {len(rules)} sizes, expected at most 3")
        for rule in rules:
            if not _RULE.fullmatch(rule):
                raise fail(f"{attribute} of WorkSizes: '{rule}' is no expression of B, F, Y, X")
    dim = sizes.get("dim", "output")
    if dim != "output" and not re.fullmatch(r"input,\d+", dim):
        raise fail(f"dim of WorkSizes must be output or input,N (with a comma), got '{dim}'")
    options = element.find("CompilerOptions")
    return KernelLayer(
        operation=name,
        entry=entry,
        sources=tuple(sources),
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.argument)),
        defines=tuple(defines),
        options="" if options is None else options.get("options", ""),
        global_size=sizes.get("global", ""),
        local_size=sizes.get("local", ""),
        element=element,
    )


def check_model(model: Any, layers: Sequence[KernelLayer]) -> int:
    """Check that OpenVINO's GPU plugin can run the operations of a model that have kernels.

    Args:
        model: An ``openvino.Model``.
        layers: What read_kernels() gave.

    Returns how many operations of the model have a kernel.

    Raises ValueError that names the operation: ranks above 4 or unknown, types that kernels cannot
    take, ports that the kernel does not have, two outputs in a graph of static shapes.
    """
    by_name = {layer.operation: layer for layer in layers}
    found = 0
    for node in model.get_ordered_ops():
        layer = by_name.get(node.get_type_name())
        if layer is None:
            continue
        found += 1
        what = f"{node.get_type_name()} '{node.get_friendly_name()}'"
        inputs, outputs = node.inputs(), node.outputs()
        for kind, ports, taken in (
            ("input", inputs, layer.inputs),
            ("output", outputs, layer.outputs),
        ):
            if len(ports) != taken:
                raise ValueError(
                    f"{what}: the operation has {len(ports)} {kind}s, its kernel {layer.entry} has "
                    f"Tensors for {taken}: a port-index is wrong or missing"
                )
            for i, port in enumerate(ports):
                shape = port.get_partial_shape()
                if shape.rank.is_dynamic or shape.rank.get_length() > 4:
                    rank = "unknown rank" if shape.rank.is_dynamic else f"shape {shape}"
                    raise ValueError(f"{what}: {kind} {i} has {rank}, kernels take ranks up to 4")
                kernel_type = port.get_element_type().get_type_name()
                if kernel_type not in _TYPES:
                    raise ValueError(
                        f"{what}: {kind} {i} is {kernel_type}, kernels take {', '.join(sorted(_TYPES))}"
                    )
        dynamic = any(port.get_partial_shape().is_dynamic for port in (*inputs, *outputs))
        if len(outputs) > 1 and not dynamic:
            raise ValueError(
                f"{what}: it has {len(outputs)} outputs, which the GPU plugin takes only where a "
                "shape is dynamic: make a dimension of the model dynamic (model.reshape)"
            )
        if len(outputs) > len(inputs):
            raise ValueError(
                f"{what}: it has {len(outputs)} outputs and {len(inputs)} inputs, the GPU plugin "
                "takes no more outputs than inputs"
            )
    return found


def joined(configs: Iterable[str | Path]) -> Path:
    """Return one XML file with the kernels of several, which lies in the cache.

    The plugin takes a single one. Its sources are copied beside it; each layer keeps its own.

    Raises ModelError as read_kernels() does, and when two files have a layer of one name.
    """
    layers = [(Path(config), layer) for config in configs for layer in read_kernels(config)]
    seen: dict[str, Path] = {}
    for path, layer in layers:
        other = seen.setdefault(layer.operation, path)
        if other != path:
            raise ModelError(f"'{other}' and '{path}' both have a kernel for {layer.operation}")
    files: dict[str, bytes] = {}
    text = []
    for path, layer in layers:
        for source in layer.element.iter("Source"):
            content = (path.parent / source.get("filename", "")).read_bytes()
            name = f"{hashlib.sha256(content).hexdigest()[:12]}-{Path(source.get('filename', '')).name}"
            files[name] = content
            source.set("filename", name)
        text.append(ET.tostring(layer.element, encoding="unicode").strip())
    config = "\n".join(text) + "\n"
    key = hashlib.sha256((config + "".join(sorted(files))).encode()).hexdigest()[:16]
    directory = cache_dir() / "opencl" / key
    if not (directory / "kernels.xml").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            for name, content in files.items():
                (made / name).write_bytes(content)
            (made / "kernels.xml").write_text(config, encoding="utf-8")
            try:
                made.rename(directory)
            except OSError:
                if not (directory / "kernels.xml").is_file():  # else another process was first
                    raise
    return directory / "kernels.xml"
