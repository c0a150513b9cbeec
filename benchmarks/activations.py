"""Post-training quantization of real convolutional ONNX models: accuracy and speed beside f32.

    python benchmarks/activations.py [-o DIR]

The models are those of rapidocr, fetched into the cache by tools/test_models.py; what they read is
text that is rendered here, so what is right is known: whether a line stands on its head
(classifier, top-1), and where lines are (detector, intersection over union with their boxes, shrunk as it was trained to find them).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import ovfast
from ovfast.cache import cache_dir
from ovfast.cli.quantize_ptq import format_comparison
from ovfast.evaluate.corpus import read_texts

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

CALIBRATED, MEASURED = 64, 200
SIDE = 480


def words() -> list[str]:
    """Short lines of English."""
    found = (" ".join(text.split()) for text in read_texts()[::2])
    return [line[at : at + 18] for line in found for at in range(0, len(line) - 18, 18)]


def render(text: str, height: int, random: np.random.Generator) -> Any:
    """Draw a line in some font and colors: u8 [height, width, 3]."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    fonts = sorted((Path(mpl.get_data_path()) / "fonts/ttf").glob("DejaVu*.ttf"))
    fonts = [file for file in fonts if "Display" not in file.name]
    font = ImageFont.truetype(str(random.choice(np.array(fonts))), round(height * 0.7))
    left, top, right, bottom = font.getbbox(text)
    dark, light = random.integers(0, 90, 3), random.integers(150, 256, 3)
    if random.random() < 0.3:
        dark, light = light, dark
    image = Image.new("RGB", (int(right - left) + 8, height), tuple(map(int, light)))
    place = (4 - left, (height - (bottom - top)) // 2 - top)
    ImageDraw.Draw(image).text(place, text, fill=tuple(map(int, dark)), font=font)
    noise = random.normal(0, 12, (image.height, image.width, 1))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def as_input(image: Any) -> Any:
    """Pixels as the models take them: f32 [1, 3, height, width]."""
    values = image.astype(np.float32) / 127.5 - 1
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def lines(count: int, seed: int) -> list[dict[str, Any]]:
    """Lines of 48 x 192, every other one on its head, with labels."""
    random, texts, made = np.random.default_rng(seed), words(), []
    for number in range(count):
        canvas = np.full((48, 192, 3), 127, np.uint8)
        line = render(str(random.choice(texts)), 48, random)[:, :192]
        canvas[:, : line.shape[1]] = line
        if number % 2:
            canvas = canvas[::-1, ::-1]
        made.append({"x": as_input(canvas), "labels": np.array([number % 2])})
    return made


def pages(count: int, seed: int) -> list[dict[str, Any]]:
    """Pages of some lines, and where these are: bool [SIDE, SIDE]."""
    random, texts, made = np.random.default_rng(seed), words(), []
    for _ in range(count):
        page = np.full((SIDE, SIDE, 3), random.integers(0, 256, 3), np.uint8)
        mask = np.zeros((SIDE, SIDE), bool)
        for top in range(20, SIDE - 60, 75):
            line = render(str(random.choice(texts)), int(random.integers(28, 48)), random)
            height, width = line.shape[0], min(line.shape[1], SIDE - 40)
            left = int(random.integers(10, SIDE - width))
            page[top : top + height, left : left + width] = line[:, :width]
            # The letters' own box, about, and from each side what DB takes away: area * (1 - 0.4^2)
            # / perimeter (arXiv 1911.08947, 3.2).
            tall = round(0.75 * height)
            cut = round(tall * width * 0.84 / (2 * (tall + width)))
            first = top + (height - tall) // 2
            mask[first + cut : first + tall - cut, left + cut : left + width - cut] = True
        made.append({"x": as_input(page), "mask": mask})
    return made


def overlap(compiled_model: Any, data: Iterable[Any]) -> float:
    """Mean intersection over union of what is found and the boxes of the lines."""
    shares = []
    for item in data:
        found = compiled_model([item["x"]])[0][0, 0] > 0.3
        shares.append((found & item["mask"]).sum() / (found | item["mask"]).sum())
    return float(np.mean(shares))


def main() -> int:
    """Quantize both models and print the tables."""
    from test_models import fetch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="keep the models in this folder")
    parser.add_argument("--max-drop", type=float, help="hold the metric")
    parser.add_argument("--only", choices=["cls", "det"])
    arguments = parser.parse_args()
    folder = fetch("rapidocr-onnxruntime", cache_dir() / "test-models")
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.output or Path(scratch)
        for name, file, make, metric, measured in (
            ("cls", "ch_ppocr_mobile_v2.0_cls_infer.onnx", lines, "top1", MEASURED),
            ("det", "ch_PP-OCRv4_det_infer.onnx", pages, overlap, 24),
        ):
            if arguments.only not in (None, name):
                continue
            calibration = [item["x"] for item in make(CALIBRATED, 1)]
            result = ovfast.quantize(
                folder / file,
                out / name,
                "ptq-int8",
                data=calibration,
                validation=make(measured, 2),
                metric=metric,
                max_drop=arguments.max_drop,
                progress=False,
                force=True,
            )
            print(f"{file}: {result.layers}, {result.seconds:.0f} s {result.notes}")
            print(format_comparison(result.comparison) + "\n", flush=True)
        if arguments.output is None:
            shutil.rmtree(out, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
