"""FSD50K: 200 classes, 51,197 clips of 0.3 to 30 s, several labels each, in three HDF5 files of mp3s."""

from pathlib import Path
from typing import Any

from datasets.csv_table import read_table
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.location import Location
from models.errors import UserError

NUM_CLASSES = 200
LOCATION = Location("fsd50k", "FSD50K_DIR", "build it in {default} with python -m datasets.prepare.fsd50k")


def training_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """The 36,796 clips of the development set's split "train"; longer ones are cropped at random.

    `options` are the `sample_rate` and the `clip_seconds` of `Mp3Dataset`; `clip_seconds=None` keeps full lengths.
    """
    return _open(dataset_dir, "train", random_crop=options.get("clip_seconds", 10.0) is not None, **options)


def validation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """The 4,170 clips of the development set's split "val", each from its beginning; `options` as above."""
    return _open(dataset_dir, "val", **options)


def evaluation_set(dataset_dir: str | Path | None = None, **options: Any) -> Mp3Dataset:
    """The 10,231 clips of the evaluation set, each from its beginning; `options` as above."""
    return _open(dataset_dir, "eval", **options)


def class_names(dataset_dir: str | Path | None = None) -> tuple[str, ...] | None:
    """The 200 labels by index, from FSD50K.ground_truth/vocabulary.csv; None where there is no such file."""
    path = LOCATION.resolve(dataset_dir) / "FSD50K.ground_truth" / "vocabulary.csv"
    return read_vocabulary(path) if path.is_file() else None


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The 200 labels of a vocabulary.csv (index, label, MID; no header). Raises FileNotFoundError and UserError."""
    rows = read_table(path, ("index", "label", "mid"), header=False)
    labels = tuple(row["label"] for row in rows)
    if [row["index"] for row in rows] != [str(index) for index in range(NUM_CLASSES)] or len(set(labels)) != NUM_CLASSES:
        raise UserError(f"{path} does not number {NUM_CLASSES} different labels from 0 on; fetch it again")
    return labels


def _open(dataset_dir: str | Path | None, part: str, **options: Any) -> Mp3Dataset:
    path = LOCATION.resolve(dataset_dir) / f"FSD50K.{part}_mp3.hdf"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; {LOCATION.remedies}")
    return Mp3Dataset(path, num_classes=NUM_CLASSES, **options)
