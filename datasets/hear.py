"""Tasks of the HEAR 2021 benchmark (Turian et al., HEAR: Holistic Evaluation of Audio Representations, PMLR 176, 2022) on disk.

The folder of a task, <task>-<version>-<mode>/, holds task_metadata.json, labelvocabulary.csv (idx, label), for each split
<split>.json (labels by file name) and <sample_rate>/<split>/ with the files.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.csv_table import read_table
from datasets.recordings import Recordings
from models.errors import UserError

TRAIN_VALID_TEST = "trainvaltest"
K_FOLDS = ("new_split_kfold", "presplit_kfold")
LONGEST = 24 * 3600.0  # seconds of a file; more is no length
_ADVICE = "give the folder of one HEAR task, and fetch or prepare it again if it is damaged"


@dataclass(frozen=True)
class HearTask:
    """A task with one embedding for each recording ("scene"): what its metadata and its vocabulary say."""

    name: str
    path: Path
    labels: tuple[str, ...]  # by class index
    is_multi_label: bool  # any number of labels for each file; otherwise exactly one
    split_mode: str  # TRAIN_VALID_TEST or one of K_FOLDS
    splits: tuple[str, ...]  # train, valid and test, or the folds
    metrics: tuple[str, ...]  # by HEAR's names ("top1_acc", "mAP", ...); the first one chooses and ranks
    clip_seconds: float | None  # of every file; None: they have lengths of their own
    sample_rates: tuple[int, ...]  # Hz, ascending; the files are there at each of them

    def recordings(self, split: str, *, sample_rate: int = 32000, cache_dir: str | Path | None = None) -> Recordings:
        """Open a split at `sample_rate`, in Hz: from files of that rate, or else those of the highest rate, resampled.

        Names are file names, sorted. Waveforms have `clip_seconds`; `cache_dir` is that of `Recordings`. Raises FileNotFoundError
        for what is missing, ValueError for a split that the task has not got, and for files or labels that do not fit the task.
        """
        if split not in self.splits:
            raise UserError(f"{self.path}: there is no split {split!r}; there are {', '.join(self.splits)}")
        index = {label: i for i, label in enumerate(self.labels)}
        path = self.path / f"{split}.json"
        files = _read_json(path)
        if not files:
            raise UserError(f"{path} names no files; {_ADVICE}")
        targets = np.zeros((len(files), len(self.labels)), np.uint8)
        names = sorted(files)
        for row, name in enumerate(names):
            labels = files[name]
            if not _is_plain(name):
                raise UserError(f"{path}: {name!r} is no plain file name")
            if not isinstance(labels, list):
                raise UserError(f"{path}: {name} has not a list of labels but {labels!r}")
            unknown = [label for label in map(str, labels) if label not in index]
            if unknown:
                raise UserError(f"{path}: {name} has the label {unknown[0]!r}, which is not in labelvocabulary.csv")
            if not self.is_multi_label and len(labels) != 1:
                raise UserError(f"{path}: {name} has {len(labels)} labels; files of a multiclass task have exactly one")
            targets[row, [index[str(label)] for label in labels]] = 1
        folder = self.path / str(sample_rate if sample_rate in self.sample_rates else self.sample_rates[-1]) / split
        return Recordings(
            [folder / name for name in names],
            targets,
            names,
            sample_rate=sample_rate,
            clip_seconds=self.clip_seconds,
            cache_dir=cache_dir,
        )


def read_task(path: str | Path) -> HearTask:
    """Read the folder of a task, but not its splits.

    Raises FileNotFoundError for what is missing, ValueError for what is damaged and for tasks with an embedding for each moment
    ("event").
    """
    path = Path(path).expanduser()
    file = path / "task_metadata.json"
    metadata = _read_json(file)

    def value(key: str, allowed: tuple[str, ...] = ()) -> str:
        found = metadata.get(key)
        if not isinstance(found, str) or not found or (allowed and found not in allowed):
            raise UserError(f"{file}: {key} is {found!r} instead of {' or '.join(allowed) or 'a name'}; {_ADVICE}")
        return found

    def names(key: str, least: int) -> tuple[str, ...]:
        found = metadata.get(key)
        if not isinstance(found, list) or not all(map(_is_plain, found)) or len(set(found)) != len(found) or len(found) < least:
            raise UserError(f"{file}: {key} is {found!r} instead of a list of at least {least} different names; {_ADVICE}")
        return tuple(found)

    name = value("task_name")
    if value("embedding_type", ("scene", "event")) == "event":
        raise UserError(
            f"{path} is an event task, which needs timestamp embeddings: evaluate it with the heareval kit, or give a scene task"
        )
    is_multi_label = value("prediction_type", ("multiclass", "multilabel")) == "multilabel"
    split_mode = value("split_mode", (TRAIN_VALID_TEST, *K_FOLDS))
    splits = ("train", "valid", "test") if split_mode == TRAIN_VALID_TEST else names("splits", 3)
    seconds = metadata.get("sample_duration")
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds <= LONGEST):
        raise UserError(f"{file}: sample_duration is {seconds!r} instead of seconds above 0, up to a day, or null; {_ADVICE}")
    metrics = names("evaluation", 1)
    sample_rates = sorted(int(entry.name) for entry in path.iterdir() if entry.is_dir() and entry.name.isdecimal())
    if not sample_rates or sample_rates[0] < 1:
        raise FileNotFoundError(f"{path} has no folder of recordings that is named by its sample rate, such as 48000; {_ADVICE}")
    labels = _read_vocabulary(path / "labelvocabulary.csv")
    return HearTask(name, path, labels, is_multi_label, split_mode, splits, metrics, seconds, tuple(sample_rates))


def _read_vocabulary(path: Path) -> tuple[str, ...]:
    rows = read_table(path, ("idx", "label"), advice=_ADVICE)
    labels = {row["idx"]: row["label"] for row in rows}
    if not rows or labels.keys() != set(map(str, range(len(rows)))) or len(set(labels.values())) != len(rows):
        raise UserError(f"{path} does not number different labels from 0 on without a gap; {_ADVICE}")
    return tuple(labels[str(i)] for i in range(len(rows)))


def _read_json(path: Path) -> dict[str, object]:
    """The object that a file holds; FileNotFoundError, and ValueError for anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; {_ADVICE}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {_ADVICE}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no object with names but {type(content).__name__}; {_ADVICE}")
    return content


def _is_plain(name: object) -> bool:
    """Whether something names an entry of a folder itself, and nothing outside of it."""
    return isinstance(name, str) and Path(name).name == name and name not in ("", "..")
