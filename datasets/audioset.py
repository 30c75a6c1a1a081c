"""AudioSet: 527 classes, about 2 M training and 20 k evaluation clips of 10 s, several labels each.

A part (balanced training, unbalanced training, evaluation) is an HDF5 file, {part}_segments_mp3.hdf, or shards: parquet files or
uncompressed tars in a folder of the part's name or with names that begin with it, such as eval/*.parquet, data/bal_train/*.parquet,
eval-00000-of-00012.parquet or unbalanced_train_003.tar.
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from datasets.balance import class_weights
from datasets.clip import ClipDataset
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.location import Location
from datasets.shards.dataset import ShardDataset
from datasets.shards.files import SUFFIXES
from models.errors import UserError

NUM_CLASSES = 527
LOCATION = Location(
    "audioset",
    "AUDIOSET_DIR",
    "build it in {default} with python -m datasets.prepare.audioset or python -m datasets.prepare.opensounds",
)
_SPELLINGS = ("segmenets", "segments")  # both are in use; the second one has precedence
# Names of the parts' shards, as on the Hugging Face Hub and as tools write them.
_SHARD_NAMES = {
    "balanced_train": ("balanced_train", "bal_train"),
    "unbalanced_train": ("unbalanced_train", "unbal_train", "train"),
    "eval": ("eval", "test"),
    "unlabelled": ("unlabelled",),
    "validation": ("validation",),
}
_CHUNK = 16384  # clips whose targets are unpacked at a time: 69 MB as float64

logger = logging.getLogger(__name__)


def training_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset | ShardDataset:
    """Balanced and unbalanced training clips, in this order; longer ones are cropped at random.

    `options` are the `sample_rate` and the `clip_seconds` of `ClipDataset`. One of the two parts is enough; that one is missing
    is logged.
    Raises FileNotFoundError when both are missing, and UserError when one is HDF5 and the other one shards.
    """
    folder = LOCATION.resolve(dataset_dir)
    parts = ("balanced_train", "unbalanced_train")
    found = _find(folder, *parts)
    for part in parts:
        if part not in found:
            logger.warning("%s has no %s_segments_mp3.hdf and no shards of it; training on %s alone", folder, part, *found)
    return _open(folder, found, random_crop=options.get("clip_seconds", 10.0) is not None, **options)


def unlabelled_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset | ShardDataset:
    """Clips for a teacher alone: those of a part "unlabelled" where it is there, else `training_set`; `options` as there."""
    folder = LOCATION.resolve(dataset_dir)
    if files := _files(folder, "unlabelled"):
        return _open(folder, {"unlabelled": files}, random_crop=options.get("clip_seconds", 10.0) is not None, **options)
    return training_set(dataset_dir, **options)


def evaluation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset | ShardDataset:
    """Evaluation clips, each from its beginning; `options` as above. Raises FileNotFoundError when there are none."""
    folder = LOCATION.resolve(dataset_dir)
    return _open(folder, _find(folder, "eval"), **options)


def validation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset | ShardDataset:
    """Clips to choose an epoch by: those of a part "validation" where it is there, else `evaluation_set`; `options` as there."""
    folder = LOCATION.resolve(dataset_dir)
    if files := _files(folder, "validation"):
        return _open(folder, {"validation": files}, **options)
    return evaluation_set(dataset_dir, **options)


def class_balanced_weights(dataset: ClipDataset) -> torch.Tensor:
    """Sampling weight of each clip, (N,) float64: the sum over its classes of 1000 / (100 + clips of that class).

    From PaSST's AudioSet recipe. A clip without labels weighs 0. Targets are read in chunks, twice, and never held at
    once.
    """
    class_counts = sum(chunk.sum(axis=0, dtype=np.int64) for chunk in _target_chunks(dataset))  # (K,)
    weights = class_weights(class_counts, smoothing=100)
    # As float64, because numpy multiplies mixed types ten times slower.
    sums = [chunk.astype(np.float64) @ weights for chunk in _target_chunks(dataset)]
    return torch.from_numpy(np.concatenate(sums))


def balanced_sampler(dataset: ClipDataset, epoch_len: int, generator: torch.Generator | None = None) -> WeightedRandomSampler:
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


def _target_chunks(dataset: ClipDataset) -> Iterator[np.ndarray]:
    return (dataset.targets(start, start + _CHUNK) for start in range(0, len(dataset), _CHUNK))


def _open(folder: Path, found: dict[str, list[Path]], **options: Any) -> Mp3Dataset | ShardDataset:
    paths = [path for part in found.values() for path in part]
    shards = [path for path in paths if path.suffix in SUFFIXES]
    if not shards:
        return Mp3Dataset(paths, num_classes=NUM_CLASSES, **options)
    if len(shards) < len(paths):
        raise UserError(
            f"{folder} has the HDF5 file {next(path.name for path in paths if path not in shards)} but shards of the other "
            "training part; convert these with python -m datasets.prepare.audioset, or move one of the two away"
        )
    return ShardDataset(paths, folder / f".{'_and_'.join(found)}", num_classes=NUM_CLASSES, **options)


def _find(folder: Path, *parts: str) -> dict[str, list[Path]]:
    """The files of these parts, as far as they are there. Raises FileNotFoundError when none is."""
    found = {part: files for part in parts if (files := _files(folder, part))}
    if not found:
        names = " or ".join(f"{part}_segments_mp3.hdf" for part in parts)
        shards = ", ".join(f"{name}/*.parquet" for part in parts for name in _SHARD_NAMES[part])
        there = ", ".join(sorted(name for name in os.listdir(folder) if not name.startswith("."))[:8]) or "nothing"
        raise FileNotFoundError(
            f"{folder} has no {names}, and no shards such as {shards} (or *.tar); it holds {there}; {LOCATION.remedies}"
        )
    return found


def _files(folder: Path, part: str) -> list[Path]:
    """The file of a part, or its shards; empty when it is not there."""
    paths = [folder / f"{part}_{spelling}_mp3.hdf" for spelling in _SPELLINGS]
    return [path for path in paths if path.is_file()][-1:] or _shards(folder, _SHARD_NAMES[part])


def _shards(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Shards in folders of these names, or with names that begin so, in `folder` or in its subfolder data; by their paths."""
    is_part = re.compile(rf"({'|'.join(names)})(_segments)?([-_.]?\d.*)?")
    found = []
    for place in (folder, folder / "data"):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_dir() and is_part.fullmatch(path.name):
                found += [file for suffix in SUFFIXES for file in path.glob(f"[!.]*{suffix}") if file.is_file()]
            elif path.suffix in SUFFIXES and is_part.fullmatch(path.stem) and path.is_file():
                found.append(path)
    return sorted(found)
