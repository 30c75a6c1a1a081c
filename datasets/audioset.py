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
_SPELLINGS = ("segments", "segmenets")  # both are in use
_CHUNK = 16384  # clips whose targets are unpacked at a time: 69 MB as float64

logger = logging.getLogger(__name__)


def training_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """Balanced and unbalanced training clips, in this order; longer ones are cropped at random.

    `options` are the `sample_rate` and the `clip_seconds` of `Mp3Dataset`. One of the two files is enough; a missing one is logged.
    Raises FileNotFoundError when both are missing.
    """
    folder = LOCATION.resolve(dataset_dir)
    found = {part: _find(folder, part) for part in ("balanced_train", "unbalanced_train")}
    paths = [path for path in found.values() if path]
    if not paths:
        raise _not_found(folder, "balanced_train", "unbalanced_train")
    for part, path in found.items():
        if path is None:
            logger.warning("%s has no %s_segments_mp3.hdf; training on %s alone", folder, part, paths[0].name)
    random_crop = options.get("clip_seconds", 10.0) is not None
    return Mp3Dataset(paths, num_classes=NUM_CLASSES, random_crop=random_crop, **options)


def evaluation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """Evaluation clips, each from its beginning; `options` as above. Raises FileNotFoundError when the file is missing."""
    folder = LOCATION.resolve(dataset_dir)
    path = _find(folder, "eval")
    if path is None:
        raise _not_found(folder, "eval")
    return Mp3Dataset(path, num_classes=NUM_CLASSES, **options)


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


def _find(folder: Path, part: str) -> Path | None:
    candidates = (folder / f"{part}_{spelling}_mp3.hdf" for spelling in _SPELLINGS)
    return next((path for path in candidates if path.is_file()), None)


def _not_found(folder: Path, *parts: str) -> FileNotFoundError:
    return FileNotFoundError(f"{folder} has no {' or '.join(f'{part}_segments_mp3.hdf' for part in parts)}; {LOCATION.remedies}")
