"""Copies of stock model directories with other weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops


def alter(
    source: Path, target: Path, part_of_name: str, change: Callable[[np.ndarray], np.ndarray]
) -> Path:
    """Write `source` to `target` with the weights of the MatMul that is named so changed."""
    model = ov.Core().read_model(source / "openvino_model.xml")
    (node,) = (
        node
        for node in model.get_ops()
        if node.get_type_name() == "MatMul" and part_of_name in node.get_friendly_name()
    )
    weight = node.input_value(1).get_node()
    while weight.get_type_name() != "Constant":
        weight = weight.input_value(0).get_node()
    changed = change(weight.data.astype(np.float32)).astype(np.float16)
    constant = ops.constant(changed)
    constant.set_friendly_name(weight.get_friendly_name())
    for taker in weight.output(0).get_target_inputs():
        taker.replace_source_output(constant.output(0))
    target.mkdir()
    for file in source.iterdir():
        if (
            file.is_file()
            and not file.name.startswith("openvino_model")
            and file.name != "ovfast.json"
        ):
            shutil.copy2(file, target)
    ov.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)
    return target
