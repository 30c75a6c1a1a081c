"""ESC-50: 2000 clips of 5 s, one of 50 classes each, in five folds.

The folder is that of the original download: meta/esc50.csv and audio/ (44.1 kHz), or audio_32k/ in its place.
"""

from pathlib import Path
from typing import Any

from datasets.csv_table import read_table
from datasets.location import Location
from datasets.recordings import Recordings, one_hot
from models.errors import UserError

NUM_CLASSES = 50
CLIP_SECONDS = 5.0
FOLDS = (1, 2, 3, 4, 5)
COLUMNS = ("filename", "fold", "target", "category", "src_file")
LOCATION = Location(
    "esc50", "ESC50_DIR", "put the original download to {default}, or resample it to there with python -m datasets.prepare.esc50"
)


def training_set(dataset_dir: str | Path | None, fold: int, **options: Any) -> Recordings:
    """Clips of the four folds other than `fold`; `options` are those of `Recordings`.

    Raises FileNotFoundError for a missing folder, CSV or recording, UserError for a damaged CSV; likewise `test_set`.
    """
    return _open(dataset_dir, fold, False, options)


def test_set(dataset_dir: str | Path | None, fold: int, **options: Any) -> Recordings:
    """Clips of `fold`; `options` are those of `Recordings`."""
    return _open(dataset_dir, fold, True, options)


def class_names(dataset_dir: str | Path | None) -> tuple[str, ...]:
    """The 50 categories by target, as the CSV names them."""
    names = {int(row["target"]): row["category"] for row in read_rows(LOCATION.resolve(dataset_dir) / "meta" / "esc50.csv")}
    if len(names) != NUM_CLASSES:
        raise UserError(f"meta/esc50.csv names {len(names)} classes instead of {NUM_CLASSES}; fetch it again")
    return tuple(names[target] for target in range(NUM_CLASSES))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read meta/esc50.csv. Raises FileNotFoundError, and UserError for what contradicts its form or itself."""
    rows = read_table(path, COLUMNS, advice=LOCATION.remedies)
    if not rows:
        raise UserError(f"{path} has no rows; fetch it again")
    folds, targets = set(map(str, FOLDS)), set(map(str, range(NUM_CLASSES)))
    files: set[str] = set()
    categories: dict[str, str] = {}
    fold_of_source: dict[str, str] = {}
    for row in rows:
        name = row["filename"]
        if Path(name).name != name or name in ("", "..") or name in files:
            raise UserError(f"{path}: {name!r} is listed twice, or is not a plain file name")
        files.add(name)
        if row["fold"] not in folds or row["target"] not in targets:
            raise UserError(f"{path}: {name} has fold {row['fold']} of 1 to 5, target {row['target']} of 0 to {NUM_CLASSES - 1}")
        if categories.setdefault(row["target"], row["category"]) != row["category"]:
            raise UserError(f"{path}: target {row['target']} is both {categories[row['target']]} and {row['category']}")
        if fold_of_source.setdefault(row["src_file"], row["fold"]) != row["fold"]:
            raise UserError(
                f"{path}: source recording {row['src_file']} is in folds {fold_of_source[row['src_file']]} and {row['fold']}; "
                "training and test would share it"
            )
    return rows


def audio_folder(dataset_dir: Path) -> Path:
    """The folder of the recordings: audio_32k where it is there, else audio."""
    resampled = dataset_dir / "audio_32k"
    return resampled if resampled.is_dir() else dataset_dir / "audio"


def _open(dataset_dir: str | Path | None, fold: int, held_out: bool, options: dict[str, Any]) -> Recordings:
    if fold not in FOLDS:
        raise UserError(f"fold is {fold}; ESC-50 has folds 1 to 5")
    folder = LOCATION.resolve(dataset_dir)
    rows = [row for row in read_rows(folder / "meta" / "esc50.csv") if (int(row["fold"]) == fold) == held_out]
    if not rows:
        raise UserError(f"{folder}: no clip is {'in' if held_out else 'outside of'} fold {fold}; fetch meta/esc50.csv again")
    audio_dir = audio_folder(folder)
    names = [row["filename"] for row in rows]
    targets = one_hot([int(row["target"]) for row in rows], NUM_CLASSES)
    return Recordings([audio_dir / name for name in names], targets, names, **{"clip_seconds": CLIP_SECONDS} | options)
