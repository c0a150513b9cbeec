"""What a model is calibrated with: arrays, images, functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptq_models import classifier, images_only

from ovfast.quantize.ptq_options import ActivationOptions
from ovfast.quantize.samples import LABELS, read_labelled, read_samples

IMAGES = np.random.default_rng(3).random((6, 1, 8, 8)).astype(np.float32)


def read(data: Any, model: Any = None, limit: int = 300, **options: Any) -> list[Any]:
    model = model or classifier()
    return read_samples(model, ActivationOptions(data=data, **options), limit)


def test_rows_of_arrays_are_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "b.npz", anything=IMAGES[:2].astype(np.float64), labels=np.arange(2))
    for data, expected in (
        (tmp_path / "a.npy", IMAGES),
        (tmp_path / "b.npz", IMAGES[:2]),
        (tmp_path, np.concatenate([IMAGES, IMAGES[:2]])),
    ):
        samples = read(data)
        assert all(sample["image"].shape == (1, 1, 8, 8) for sample in samples)
        assert all(sample["image"].dtype == np.float32 for sample in samples)
        np.testing.assert_array_equal(np.concatenate([s["image"] for s in samples]), expected)
    assert len(read(tmp_path, limit=3)) == 3


def test_a_dimension_before_the_model_s_counts_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES.reshape(3, 2, 1, 8, 8))
    samples = read(tmp_path / "a.npy")
    assert [sample["image"].shape for sample in samples] == [(2, 1, 8, 8)] * 3


def test_a_fixed_batch_is_cut_to_it(tmp_path: Path) -> None:
    model = classifier()
    model.reshape([3, 1, 8, 8])
    np.save(tmp_path / "a.npy", IMAGES)
    assert [sample["image"].shape for sample in read(tmp_path / "a.npy", model)] == [
        (3, 1, 8, 8)
    ] * 2
    np.save(tmp_path / "a.npy", IMAGES[:4])
    with pytest.raises(ValueError, match="no number of samples of \\[3,1,8,8\\]"):
        read(tmp_path / "a.npy", model)


def test_functions_and_inputs_in_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_ptq_inputs.py").write_text(
        "import numpy as np\n"
        "def give():\n"
        "    for number in range(9):\n"
        "        yield [np.full((1, 1, 8, 8), number)]\n"
    )
    monkeypatch.chdir(tmp_path)
    samples = read("my_ptq_inputs:give", limit=4)
    assert [sample["image"].max() for sample in samples] == [0, 1, 2, 3]
    for form in (IMAGES[:1], [IMAGES[:1]], {"image": IMAGES[:1]}):
        np.testing.assert_array_equal(read([form])[0]["image"], IMAGES[:1])
    with pytest.raises(ValueError, match="data: 'my_ptq_inputs:none' cannot be found"):
        read("my_ptq_inputs:none")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected inputs to calibrate with, got none"),
        ([{"picture": IMAGES, "b": 1}], r"expected arrays for \['image'\], got \['b', 'picture'\]"),
        ([IMAGES[:, :, :4]], r"shape \[6, 1, 4, 8\], the model takes \[\?,1,8,8\]"),
        ([IMAGES.astype(complex)], "is complex128, the model takes float32"),
        ([IMAGES * np.nan], "holds a NaN or an infinity"),
        ([(IMAGES, IMAGES)], "expected 1 inputs, got 2"),
    ],
)
def test_what_does_not_fit(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(data)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("no array")
    with pytest.raises(ValueError, match="expected .npz, .npy or a folder for this model"):
        read(tmp_path / "texts.txt")
    with pytest.raises(ValueError, match="images in .*, got none of them"):
        read(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match="cannot be read as arrays"):
        read(tmp_path / "a.npz")


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, image=IMAGES, labels=np.arange(6))
    assert [item[LABELS].tolist() for item in read_labelled(classifier(), path)] == [
        [number] for number in range(6)
    ]
    for labels in (np.arange(5), np.ones(6), np.ones((6, 1), int)):
        np.savez(path, image=IMAGES, labels=labels)
        with pytest.raises(ValueError, match="expected 6 integers as 'labels'"):
            read_labelled(classifier(), path)
    np.savez(path, image=IMAGES)
    with pytest.raises(ValueError, match="expected an .npz with the array 'labels'"):
        read_labelled(classifier(), path)


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Any]:
    """A folder with one image, and its pixels."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(4).integers(0, 256, (6, 10, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path, pixels


@pytest.mark.parametrize(("shape", "layout"), [([1, 3, 6, 10], "NCHW"), ([1, 6, 10, 3], "NHWC")])
def test_images(folder: tuple[Path, Any], shape: list[int], layout: str) -> None:
    path, pixels = folder
    mean, scale = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    expected = ((pixels - np.float32(mean)) / np.float32(scale)).astype(np.float32)
    got = read(path, images_only(shape), image_mean=mean, image_scale=scale)[0]["image"]
    got = got[0].transpose(1, 2, 0) if layout == "NCHW" else got[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    bgr = read(path, images_only(shape), image_mean=0, image_scale=255, image_bgr=True)[0]["image"]
    bgr = bgr[0].transpose(1, 2, 0) if layout == "NCHW" else bgr[0]
    np.testing.assert_allclose(bgr, pixels[..., ::-1] / 255, rtol=1e-5)


def test_images_are_resized(folder: tuple[Path, Any]) -> None:
    path, pixels = folder
    for shape, size in (([1, 3, 3, 5], None), ([-1, 3, -1, -1], (3, 5))):
        got = read(path, images_only(shape), image_mean=0, image_scale=1, image_size=size)[0][
            "image"
        ]
        assert got.shape == (1, 3, 3, 5)
        # Halved on both sides: a linear filter takes the mean of four pixels.
        halved = pixels.reshape(3, 2, 5, 2, 3).mean((1, 3)).transpose(2, 0, 1)
        np.testing.assert_allclose(got[0], halved, atol=0.51)
    plain = read(path, images_only([1, -1, -1, 3], "NHWC", np.uint8))[0]["image"]
    np.testing.assert_array_equal(plain[0], pixels)


@pytest.mark.parametrize(
    ("shape", "kind", "options", "message"),
    [
        ([1, 3, 6, 10], np.float32, {}, "image_mean, image_scale: expected numbers, since"),
        ([1, 3, 6, 10], np.uint8, {"image_mean": 1}, "expected nothing, since the model takes u8"),
        ([1, 30], np.float32, {}, "images are for models with one input of four dimensions"),
        ([1, 3, 3, 3], np.uint8, {}, "image_layout: expected the dimensions of"),
        ([1, 6, 6, 6], np.uint8, {"image_layout": "NCHW"}, "images have 1 or 3 channels"),
        ([1, 3, 6, 10], np.uint8, {"image_size": (7, 7)}, "image_size: expected what fits"),
    ],
)
def test_images_that_do_not_fit(
    folder: tuple[Path, Any], shape: list[int], kind: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(folder[0], images_only(shape, kind=kind), **options)


def test_a_broken_image(folder: tuple[Path, Any]) -> None:
    (folder[0] / "b.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="b.jpg' cannot be read as an image"):
        read(folder[0], images_only([1, 3, 6, 10], kind=np.uint8))
