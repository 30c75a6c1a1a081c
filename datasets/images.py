"""Images in ImageNet's layout, `train/<class>/*` and `val/<class>/*`, in one channel.

Using this needs torchvision (requirements-imagenet.txt); importing it does not.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from models.errors import UserError

PARTS = ("train", "val")
MAX_PIXELS = 1 << 26  # of an image; a small file may hold many

Transform = Callable[[Any], torch.Tensor]  # from a grey image of Pillow to (1, H, W) uint8


class ImageError(UserError):
    """An image cannot be decoded; the message names it in one line."""


class Picture(NamedTuple):
    """One image and its class; batches as `datasets.clip.Clip` does."""

    pixels: torch.Tensor  # (1, H, W) uint8
    target: torch.Tensor  # (K,) float32, one-hot
    name: str  # path below the data set's folder, with '/'
    index: int


class Images(Dataset[Picture]):
    """The images of one part, train or val, of a folder; the class is the name of the folder an image is in.

    Images are decoded to luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), before `transform` sees them.
    """

    def __init__(self, root: Path, part: str, transform: Transform) -> None:
        """Raises NotADirectoryError for a missing part, and FileNotFoundError for one, or a class of it, without images."""
        from torchvision.datasets import ImageFolder

        folder = root / part
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder; images lie in train/<class>/ and val/<class>/ of {root}")
        found = ImageFolder(folder)
        self.class_names: tuple[str, ...] = tuple(found.classes)  # sorted
        self.transform = transform
        self._root = root
        self._samples: list[tuple[str, int]] = found.samples

    @property
    def names(self) -> list[str]:
        """Names of all images by index."""
        return [self._name(path) for path, _ in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Picture:
        """Image of an index. Raises `ImageError` for a file that cannot be decoded."""
        from PIL import Image

        path, label = self._samples[index]
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
                grey = image.convert("L")
        except Exception as error:  # Pillow fails on damaged files in many ways, SyntaxError and struct.error among them
            raise ImageError(f"{path}, image {index}, cannot be decoded: {error}") from error
        target = torch.zeros(len(self.class_names))
        target[label] = 1
        return Picture(self.transform(grey), target, self._name(path), index)

    def _name(self, path: str) -> str:
        return path[len(str(self._root)) + 1 :].replace(os.sep, "/")


def training_transform(size: int, *, min_area: float, flip: bool, randaugment: int) -> Transform:
    """Random resized crop (Szegedy et al., CVPR 2015) to `size` x `size`, mirroring, RandAugment (Cubuk et al., NeurIPS 2020).

    A crop has `min_area` to all of the image's area. `randaugment` is the magnitude of its two operations, 0 to 30; 0 turns it off.
    Everything is drawn from torch's generator.
    """
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomResizedCrop(size, scale=(min_area, 1.0))]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if randaugment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=randaugment, interpolation=v2.InterpolationMode.BILINEAR))
    return v2.Compose([*steps, v2.PILToTensor()])


def evaluation_transform(size: int, *, crop: float) -> Transform:
    """The central square of `size` x `size` that holds the share `crop` of the shorter side."""
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(size / crop)), v2.CenterCrop(size), v2.PILToTensor()])
