"""Data sets as tasks for a probe: full-length clips, the split or fold of each, and the metric."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from datasets import audioset, esc50, fsd50k, hear
from datasets.clip import ClipDataset
from datasets.folders import folder
from datasets.strong_labels import LabelledEvent
from helpers.probing.probe import METRICS
from helpers.probing.scoring import EVENT_METRICS
from models.errors import UserError

DRAWN_FOLDS = 5  # of a folder without splits
VALID_SHARE = 0.1  # of AudioSet's training clips


@dataclass(frozen=True)
class EventTask:
    """What an event task has in addition: the events of each clip, and how they may be read from scores, in ms."""

    truth: tuple[tuple[LabelledEvent, ...], ...]
    num_classes: int
    median_filter_ms: tuple[float, ...]
    min_duration_ms: tuple[float, ...]


@dataclass(frozen=True)
class ProbeTask:
    """N clips, in one data set or several one after the other, with the splits, targets and metric of a probe."""

    name: str
    clips: tuple[ClipDataset, ...]
    splits: np.ndarray  # (N,) names of folds, or train, valid and test
    folds: bool  # each split is tested in turn
    single_label: bool
    metric: str  # by HEAR's names, see helpers.probing.probe.METRICS and helpers.probing.scoring.EVENT_METRICS
    events: EventTask | None = None  # of tasks with an embedding for each moment

    @property
    def targets(self) -> np.ndarray:
        """(N, K) uint8 of 0 and 1; of event tasks, which classes are anywhere in a clip."""
        return np.concatenate([clips.targets() for clips in self.clips])

    def chance(self) -> float:
        """The score of knowing how frequent classes are and nothing of a clip: for top1_acc, the share of the largest class.

        That of no event is 0.
        """
        if self.events:
            return 0.0
        targets = self.targets
        return METRICS[self.metric](targets, np.broadcast_to(targets.mean(0), targets.shape))

    @cached_property
    def fingerprint(self) -> str:
        """A text that is the same where labels, splits and metric are."""
        content = hashlib.sha256(np.ascontiguousarray(self.targets))
        content.update(json.dumps([self.splits.tolist(), self.folds, not self.single_label, self.metric]).encode())
        if self.events:
            content.update(repr(self.events).encode())
        return content.hexdigest()


def open_task(path: str | Path, sample_rate: int = 32000, seed: int = 0) -> ProbeTask:
    """Open a data set in whichever of these layouts it has, with clips at `sample_rate` in Hz.

    | path | splits | metric |
    |---|---|---|
    | folder of a HEAR task (task_metadata.json) | the task's | the task's first |
    | folder of ESC-50 (meta/esc50.csv) | its 5 folds | top1_acc |
    | folder of FSD50K's HDF5 files | train, val, eval | mAP |
    | folder of AudioSet's HDF5 files | train, of which a tenth validates; eval | mAP |
    | folder with one folder per class, or a CSV next to the recordings (`datasets.folders`) | its folds or splits, else 5 folds | |

    The last kind has top1_acc, or mAP where recordings have several labels. Folds, and a validation split where there is none, are
    drawn by `seed`; groups stay together. Raises FileNotFoundError and ValueError, as the data sets do.
    """
    path = Path(path).expanduser().resolve()
    if not path.exists():
        raise FileNotFoundError(f"{path} not found; give the folder of a data set, or the CSV next to its recordings")
    if (path / "task_metadata.json").is_file():
        return _hear(path, sample_rate)
    if (path / "meta" / "esc50.csv").is_file():
        parts = {f"fold{fold}": esc50.test_set(path, fold, sample_rate=sample_rate) for fold in esc50.FOLDS}
        return _joined(path.name, parts, folds=True, single_label=True, metric="top1_acc")
    whole = {"sample_rate": sample_rate, "clip_seconds": None}
    if any(path.glob("FSD50K.*_mp3.hdf")):
        sets = {"train": fsd50k.training_set, "valid": fsd50k.validation_set, "test": fsd50k.evaluation_set}
        parts = {split: open_set(path, **whole) for split, open_set in sets.items()}
        return _joined(path.name, parts, folds=False, single_label=False, metric="mAP")
    if any(path.glob("*_mp3.hdf")):
        return _audioset(path, whole, seed)
    if inside := sorted(path.glob("**/task_metadata.json")):
        raise UserError(f"{path} holds {len(inside)} HEAR tasks; give the folder of each, such as {inside[0].parent}")
    return _folder(path, whole, seed)


def _joined(name: str, parts: dict[str, ClipDataset], *, folds: bool, single_label: bool, metric: str) -> ProbeTask:
    splits = np.repeat(list(parts), [len(clips) for clips in parts.values()])
    return ProbeTask(name, tuple(parts.values()), splits, folds, single_label, metric)


def _hear(path: Path, sample_rate: int) -> ProbeTask:
    task = hear.read_task(path)
    metrics = EVENT_METRICS if task.is_event else METRICS
    if task.metrics[0] not in metrics:
        raise UserError(f"{path} is scored by {task.metrics[0]!r}; known are {', '.join(metrics)}")
    parts = {split: task.recordings(split, sample_rate=sample_rate) for split in task.splits}
    joined = _joined(
        task.name,
        parts,
        folds=task.split_mode in hear.K_FOLDS,
        single_label=task.single_label,
        metric=task.metrics[0],
    )
    if not task.is_event:
        return joined
    truth = tuple(tuple(events) for split in task.splits for events in task.events(split))
    return replace(joined, events=EventTask(truth, len(task.labels), task.median_filter_ms, task.min_duration_ms))


def _audioset(path: Path, whole: dict, seed: int) -> ProbeTask:
    training, evaluation = audioset.training_set(path, **whole), audioset.evaluation_set(path, **whole)
    validates = np.random.default_rng(seed).random(len(training)) < VALID_SHARE
    splits = np.concatenate([np.where(validates, "valid", "train"), np.repeat("test", len(evaluation))])
    return ProbeTask(path.name, (training, evaluation), splits, False, False, "mAP")


def _folder(path: Path, whole: dict, seed: int) -> ProbeTask:
    data = folder.scan(path.parent, path) if path.is_file() else folder.scan(path)
    folds = True
    if data.folds is not None:
        splits: Sequence[str] = data.folds
    elif data.splits is not None and "test" in data.splits:
        folds, splits = False, np.repeat("valid", len(data.paths)).astype("U5")
        part = folder.split(data, seed=seed)
        splits[part.train], splits[part.test] = "train", "test"
    else:
        splits = _drawn_folds(data, seed)
    clips = data.clips(range(len(data.paths)), **whole)
    metric = "top1_acc" if data.single_label else "mAP"
    return ProbeTask(path.stem, (clips,), np.asarray(splits), folds, data.single_label, metric)


def _drawn_folds(data: folder.FolderData, seed: int) -> np.ndarray:
    """Draw stratified folds; a group is never divided."""
    groups = np.asarray(data.groups or data.names)
    count = min(DRAWN_FOLDS, len(np.unique(groups)))
    if data.single_label:
        count = min(count, int(data.targets.sum(0).max()))
    if count < 3:
        raise UserError(f"{len(groups)} recordings cannot be divided into three folds, to train, validate and test; add some")
    splitter = (StratifiedGroupKFold if data.single_label else GroupKFold)(count, shuffle=True, random_state=seed)
    folds = np.empty(len(groups), "U5")
    with warnings.catch_warnings():  # classes with fewer recordings than folds are no mistake
        warnings.simplefilter("ignore")
        for number, (_, rows) in enumerate(splitter.split(folds, data.targets.argmax(1), groups)):
            folds[rows] = f"fold{number}"
    return folds
