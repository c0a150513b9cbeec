"""The .xml of an IR whose .bin is there already."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import openvino

from ovfast.export.decoder.plan import Plan

__all__ = ["write_ir"]

_ALIGNMENT = 64
_PARAMETER = re.compile(
    r'<layer id="(\d+)" name="([^"]*)" type="Parameter" version="opset1">\s*<data ([^>]*?) ?/>'
)
_CONSTANT = re.compile(r'\boffset="(\d+)" size="(\d+)"')


def write_ir(model: Any, plan: Plan, binary: Path) -> Path:
    """Write the .xml beside a .bin that holds the plan's constants; return it.

    OpenVINO writes constants along with a graph. Those of the plan stand as parameters in it, which
    become constants in the text; the small others are appended to the .bin. Raises OSError.
    """
    xml = binary.with_suffix(".xml")
    small = binary.with_suffix(".small")
    openvino.serialize(model, xml, small)
    text, values = xml.read_text(encoding="utf-8"), small.read_bytes()
    needed = max((int(at) + int(size) for at, size in _CONSTANT.findall(text)), default=0)
    if not text.endswith("</net>\n") or len(values) < needed:  # it does not say that a disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(xml))
    begin = -(-plan.size // _ALIGNMENT) * _ALIGNMENT
    with binary.open("r+b") as stream:
        stream.truncate(begin)
        stream.seek(begin)
        stream.write(values)
    small.unlink()
    constants = {
        stored.name: stored
        for weight in plan.weights.values()
        for stored in (weight.values, weight.scales, weight.zero_points)
        if stored is not None
    }

    def moved(match: re.Match[str]) -> str:
        return f'offset="{begin + int(match[1])}" size="{match[2]}"'

    def constant(match: re.Match[str]) -> str:
        stored = constants.pop(match[2], None)
        if stored is None:
            return match[0]  # an input
        return (
            f'<layer id="{match[1]}" name="{match[2]}" type="Const" version="opset1">\n'
            f'\t\t\t<data element_type="{stored.type}" shape="{", ".join(map(str, stored.shape))}" '
            f'offset="{stored.offset}" size="{stored.size}" />'
        )

    text = _CONSTANT.sub(moved, text)
    text = _PARAMETER.sub(constant, text)
    if constants:
        raise AssertionError(f"the graph lacks {next(iter(constants))}")
    xml.write_text(text, encoding="utf-8")
    return xml
