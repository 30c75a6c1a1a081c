"""AudioSet: 527 classes, about 2 M training and 20 k evaluation clips of 10 s, several labels each."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from datasets.hdf5_mp3 import Mp3Dataset
from datasets.location import Location

NUM_CLASSES = 527
LOCATION = Location(
    "audioset",
    "AUDIOSET_DIR",
    "build it in {default} with python -m datasets.prepare.audioset or python -m datasets.prepare.opensounds",
)
_SPELLINGS = ("segmenets", "segments")  # both are in use; the second one has precedence
_CHUNK = 16384  # clips whose targets are unpacked at a time: 69 MB as float64

logger = logging.getLogger(__name__)


def training_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """Balanced and unbalanced training clips, in this order; longer ones are cropped at random.

    `options` are the `sample_rate` and the `clip_seconds` of `Mp3Dataset`. One of the two files is enough; a missing one is logged.
    Raises FileNotFoundError when both are missing.
    """
    folder = LOCATION.resolve(dataset_dir)
    parts = ("balanced_train", "unbalanced_train")
    found = _find(folder, *parts)
    paths = list(found.values())
    for part in parts:
        if part not in found:
            logger.warning("%s has no %s_segments_mp3.hdf; training on %s alone", folder, part, paths[0].name)
    random_crop = options.get("clip_seconds", 10.0) is not None
    return Mp3Dataset(paths, num_classes=NUM_CLASSES, random_crop=random_crop, **options)


def unlabelled_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """Clips for a teacher alone: unlabelled ones where there are any, else those of `training_set`; `options` as there."""
    folder = LOCATION.resolve(dataset_dir)
    path = folder / "unlabelled_segments_mp3.hdf"
    if not path.is_file():
        return training_set(dataset_dir, **options)
    return Mp3Dataset(path, num_classes=NUM_CLASSES, random_crop=options.get("clip_seconds", 10.0) is not None, **options)


def evaluation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """Evaluation clips, each from its beginning; `options` as above. Raises FileNotFoundError when the file is missing."""
    path = _find(LOCATION.resolve(dataset_dir), "eval")["eval"]
    return Mp3Dataset(path, num_classes=NUM_CLASSES, **options)


def validation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """Clips to choose an epoch by: validation_segments_mp3.hdf where it is there, else the evaluation clips; `options` as there."""
    path = LOCATION.resolve(dataset_dir) / "validation_segments_mp3.hdf"
    return Mp3Dataset(path, num_classes=NUM_CLASSES, **options) if path.is_file() else evaluation_set(dataset_dir, **options)


def class_balanced_weights(dataset: Mp3Dataset) -> torch.Tensor:
    """Sampling weight of each clip, (N,) float64: the sum over its classes of 1000 / (100 + clips of that class).

    From PaSST's AudioSet recipe. A clip without labels weighs 0. Targets are read in chunks, twice, and never held at
    once.
    """
    class_counts = sum(chunk.sum(axis=0, dtype=np.int64) for chunk in _target_chunks(dataset))  # (K,)
    class_weights = 1000 / (100 + class_counts)
    # As float64, because numpy multiplies mixed types ten times slower.
    sums = [chunk.astype(np.float64) @ class_weights for chunk in _target_chunks(dataset)]
    return torch.from_numpy(np.concatenate(sums))


def balanced_sampler(dataset: Mp3Dataset, epoch_len: int, generator: torch.Generator | None = None) -> WeightedRandomSampler:
    """Sampler of `epoch_len` different clips per epoch, drawn with `class_balanced_weights`.

    `epoch_len` is cut to the number of clips with a label, which is logged.
    """
    weights = class_balanced_weights(dataset)
    available = int((weights > 0).sum())
    if epoch_len > available:
        logger.warning(
            "an epoch of %d clips is cut to the %d labelled clips there are: all are drawn, and class balancing has no effect",
            epoch_len,
            available,
        )
        epoch_len = available
    return WeightedRandomSampler(weights, epoch_len, replacement=False, generator=generator)


def _target_chunks(dataset: Mp3Dataset) -> Iterator[np.ndarray]:
    return (dataset.targets(start, start + _CHUNK) for start in range(0, len(dataset), _CHUNK))


def _find(folder: Path, *parts: str) -> dict[str, Path]:
    """The files of these parts, as far as they are there. Raises FileNotFoundError when none is."""
    paths = [(part, folder / f"{part}_{spelling}_mp3.hdf") for part in parts for spelling in _SPELLINGS]
    found = {part: path for part, path in paths if path.is_file()}
    if not found:
        names = " or ".join(f"{part}_segments_mp3.hdf" for part in parts)
        raise FileNotFoundError(f"{folder} has no {names}; {LOCATION.remedies}")
    return found
