"""FSD50K: 200 classes, 51,197 clips of 0.3 to 30 s, several labels each, in three HDF5 files of mp3s."""

from pathlib import Path

from datasets.csv_table import read_table
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.layout import find_dir
from models.errors import UserError

NUM_CLASSES = 200
DEFAULT_DIR = Path(__file__).resolve().parent.parent / "data" / "fsd50k"
_ADVICE = f"build one in the default place, {DEFAULT_DIR}, with python -m datasets.prepare.fsd50k"


def resolve_dir(dataset_dir: str | Path | None = None) -> Path:
    """Folder of the HDF5 files: `dataset_dir`, else the variable FSD50K_DIR, else data/fsd50k beside the code.

    Raises FileNotFoundError when it is not a folder.
    """
    return find_dir(dataset_dir, "FSD50K_DIR", DEFAULT_DIR, _ADVICE)


def training_set(
    dataset_dir: str | Path | None = None, *, sample_rate: int = 32000, clip_seconds: float | None = 10.0
) -> Mp3Dataset:
    """The 36,796 clips of the development set's split "train"; longer ones are cropped at random."""
    return _open(dataset_dir, "train", sample_rate, clip_seconds, random_crop=clip_seconds is not None)


def validation_set(
    dataset_dir: str | Path | None = None, *, sample_rate: int = 32000, clip_seconds: float | None = 10.0
) -> Mp3Dataset:
    """The 4,170 clips of the development set's split "val", each from its beginning; `clip_seconds` None gives whole clips."""
    return _open(dataset_dir, "val", sample_rate, clip_seconds)


def evaluation_set(
    dataset_dir: str | Path | None = None, *, sample_rate: int = 32000, clip_seconds: float | None = 10.0
) -> Mp3Dataset:
    """The 10,231 clips of the evaluation set, each from its beginning; None as `clip_seconds` gives whole clips."""
    return _open(dataset_dir, "eval", sample_rate, clip_seconds)


def class_names(dataset_dir: str | Path | None = None) -> tuple[str, ...] | None:
    """The 200 labels by index, from FSD50K.ground_truth/vocabulary.csv; None where there is no such file."""
    path = resolve_dir(dataset_dir) / "FSD50K.ground_truth" / "vocabulary.csv"
    return read_vocabulary(path) if path.is_file() else None


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The 200 labels of a vocabulary.csv (index, label, MID; no header). Raises FileNotFoundError and ValueError."""
    rows = read_table(path, ("index", "label", "mid"), header=False)
    labels = tuple(row["label"] for row in rows)
    if [row["index"] for row in rows] != [str(index) for index in range(NUM_CLASSES)] or len(set(labels)) != NUM_CLASSES:
        raise UserError(f"{path} does not number {NUM_CLASSES} different labels from 0 on; fetch it again")
    return labels


def _open(
    dataset_dir: str | Path | None, part: str, sample_rate: int, clip_seconds: float | None, random_crop: bool = False
) -> Mp3Dataset:
    path = resolve_dir(dataset_dir) / f"FSD50K.{part}_mp3.hdf"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; pass --dataset_dir, set FSD50K_DIR, or {_ADVICE}")
    return Mp3Dataset(path, num_classes=NUM_CLASSES, sample_rate=sample_rate, clip_seconds=clip_seconds, random_crop=random_crop)
