"""Folders of images: luminance, classes, crops that follow from a seed, damaged files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")
from PIL import Image

from datasets import images
from datasets.images import ImageError, Images, evaluation_transform, training_transform
from helpers.training.sampling import ClipDraw, SeededClips


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of colour noise, 20 x 30 pixels (height, width)."""
    rng = np.random.default_rng(0)
    for part, label, count in (("train", "cat", 3), ("train", "dog", 2), ("val", "cat", 1), ("val", "dog", 1)):
        (tmp_path / part / label).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / label / f"{i}.png")
    return tmp_path


def augmentation():
    return training_transform(16, min_area=0.3, flip=True, randaugment=9)


def test_images_are_luminance_with_the_class_of_their_folder(folder: Path) -> None:
    images = Images(folder, "train", evaluation_transform(20, crop=1.0))
    assert images.class_names == ("cat", "dog") and len(images) == 5
    assert images.names == ["train/cat/0.png", "train/cat/1.png", "train/cat/2.png", "train/dog/0.png", "train/dog/1.png"]
    pixels, target, name, index = images[4]
    assert (name, index, target.tolist()) == ("train/dog/1.png", 4, [0.0, 1.0])
    assert pixels.shape == (1, 20, 20) and pixels.dtype == torch.uint8
    colours = np.asarray(Image.open(folder / name))[:, 5:25].astype(float)  # the central square
    luminance = colours @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert np.abs(pixels[0].numpy() - luminance).max() <= 1


def test_evaluation_sees_a_share_of_the_shorter_side(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    pixels = evaluation_transform(100, crop=0.5)(Image.fromarray(ramp))
    assert pixels.shape == (1, 100, 100)
    torch.testing.assert_close(pixels[0, 0].float(), torch.arange(50.0, 150.0), atol=1, rtol=0)


def test_augmentation_follows_from_the_seed_of_a_draw(folder: Path) -> None:
    images = SeededClips(Images(folder, "train", augmentation()))
    first, again = images[ClipDraw(0, 7)].pixels, images[ClipDraw(0, 7)].pixels
    assert first.shape == (1, 16, 16) and torch.equal(first, again)
    assert len({images[ClipDraw(0, seed)].pixels.numpy().tobytes() for seed in range(20)}) == 20


def test_a_damaged_image_is_named_and_replaced_in_training(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "train/cat/1.png"
    path.write_bytes(path.read_bytes()[:300])
    images = Images(folder, "train", augmentation())
    with pytest.raises(ImageError, match="train/cat/1.png"):
        images[1]
    caplog.set_level(logging.WARNING)
    assert SeededClips(images)[ClipDraw(1, 3)].name != "train/cat/1.png" and "train/cat/1.png" in caplog.text


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(NotADirectoryError, match="train/<class>/"):
        Images(folder / "train", "val", augmentation())
    (folder / "val/bird").mkdir()
    with pytest.raises(FileNotFoundError, match="bird"):
        Images(folder, "val", augmentation())


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    with pytest.raises(ImageError, match="pixels"):
        Images(folder, "val", evaluation_transform(8, crop=1.0))[0]
