"""A folder of images as inputs of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovfast.convert.input_options import Input
from ovfast.convert.preprocess import preprocess
from ovfast.errors import Error
from ovfast.quantize.ptq_options import ActivationOptions

__all__ = ["IMAGE_SUFFIXES", "read_images"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_MODES = {1: "L", 3: "RGB"}


def read_images(
    model: Any, files: Sequence[Path], options: ActivationOptions
) -> Iterator[dict[str, Any]]:
    """Yield each image as the only input of an `openvino.Model`, [1, ...].

    An image is resized to the model's height and width, or to `image_size`, by the same operations
    that `ovfast.convert` puts into a model. A model that takes u8 does the rest itself; others need
    image_mean and image_scale to be said.

    Raises ValueError for a model that takes no images, for what is missing, and for a file that is
    no image; Error without Pillow.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise Error("images need Pillow: pip install 'ovfast[quantize]'") from error

    port, layout = _image_input(model, options)
    channels = port.get_partial_shape()[layout.index("C")].get_length()
    steps = _steps(port, layout, options)
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = np.array(image.convert(_MODES[channels]), np.uint8)
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"'{file}' cannot be read as an image: {error}") from error
        batch = pixels.reshape(1, *pixels.shape[:2], channels)
        yield {port.get_any_name(): next(iter(steps(batch).values())).copy()}


def _image_input(model: Any, options: ActivationOptions) -> tuple[Any, str]:
    """The input, and what its dimensions are."""
    port = model.inputs[0]
    shape = port.get_partial_shape()
    if len(model.inputs) != 1 or shape.rank.is_dynamic or len(shape) != 4:
        raise ValueError(
            "data: images are for models with one input of four dimensions, this one takes "
            + ", ".join(f"{one.get_any_name()}{one.get_partial_shape()}" for one in model.inputs)
        )
    layout = options.image_layout or port.get_node().layout.to_string().strip("[]").replace(",", "")
    if sorted(layout) != sorted("NCHW"):
        found = [
            known
            for known in ("NCHW", "NHWC")
            if shape[known.index("C")].is_static and shape[known.index("C")].get_length() in _MODES
        ]
        if len(found) != 1:
            raise ValueError(f"image_layout: expected the dimensions of {shape}, such as NCHW")
        layout = found[0]
    channels = shape[layout.index("C")]
    if channels.is_dynamic or channels.get_length() not in _MODES:
        raise ValueError(f"data: images have 1 or 3 channels, the input {shape} has {channels}")
    return port, layout


def _steps(port: Any, layout: str, options: ActivationOptions) -> Any:
    """Compile what turns pixels, u8 [1, height, width, channels], into the input."""
    import openvino as ov
    from openvino import opset13 as ops

    kind = port.get_element_type()
    arithmetic = options.image_mean is not None or options.image_scale is not None
    if kind == ov.Type.u8 and arithmetic:
        raise ValueError("image_mean, image_scale: expected nothing, since the model takes u8")
    if kind != ov.Type.u8 and not arithmetic:
        raise ValueError(
            f"image_mean, image_scale: expected numbers, since the model takes {kind.get_type_name()}; "
            "0 and 1 for pixels as they are. Or put the steps into the model with ovfast convert"
        )
    shape = port.get_partial_shape()
    for letter, side in zip("HW", options.image_size or (), strict=False):
        place = layout.index(letter)
        if not shape[place].compatible(ov.Dimension(side)):
            raise ValueError(f"image_size: expected what fits {shape}, got {options.image_size}")
        shape[place] = side
    shape[layout.index("N")] = 1
    sized = all(shape[layout.index(letter)].is_static for letter in "HW")
    name = port.get_any_name()
    parameter = ops.parameter(shape, kind, name=name)
    parameter.output(0).get_tensor().set_names({name})
    # Plain identity, which no step may take for the parameter itself.
    same = ops.convert(parameter, kind)
    graph = ov.Model([ops.result(same)], [parameter], "image")
    given = Input(
        layout=layout,
        data_layout="NHWC",
        data_type="u8",
        mean=options.image_mean,
        scale=options.image_scale,
        reverse_channels=options.image_bgr,
        resize="linear" if sized else None,
    )
    return ov.Core().compile_model(
        preprocess(graph, {name: given}), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
