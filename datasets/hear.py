"""Tasks of the HEAR 2021 benchmark (Turian et al., HEAR: Holistic Evaluation of Audio Representations, PMLR 176, 2022) on disk.

The folder of a task, <task>-<version>-<mode>/, holds task_metadata.json, labelvocabulary.csv (idx, label), for each split
<split>.json and <sample_rate>/<split>/ with the files. <split>.json has the labels by file name: of a task with one embedding for
each recording ("scene") a list of them, of one with an embedding for each moment ("event") a list of label, start and end in ms.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.csv_table import read_table
from datasets.recordings import Recordings
from datasets.strong_labels import LabelledEvent
from models.errors import UserError

TRAIN_VALID_TEST = "trainvaltest"
K_FOLDS = ("new_split_kfold", "presplit_kfold")
LONGEST = 24 * 3600.0  # seconds of a file; more is no length
MEDIAN_FILTER_MS, MIN_DURATION_MS = (250.0,), (125.0, 250.0)  # of heareval 2021.1.3, for DCASE 2016 task 2
_ADVICE = "give the folder of one HEAR task, and fetch or prepare it again if it is damaged"


@dataclass(frozen=True)
class HearTask:
    """A task: its metadata and its vocabulary."""

    name: str
    path: Path
    labels: tuple[str, ...]  # by class index
    single_label: bool  # exactly one label for each file; otherwise any number
    split_mode: str  # TRAIN_VALID_TEST or one of K_FOLDS
    splits: tuple[str, ...]  # train, valid and test, or the folds
    metrics: tuple[str, ...]  # by HEAR's names ("top1_acc", "mAP", ...); the first one chooses and ranks
    clip_seconds: float | None  # of every file; None: they have lengths of their own
    sample_rates: tuple[int, ...]  # Hz, ascending; the files are there at each of them
    is_event: bool = False  # an embedding for each moment, not for each recording
    median_filter_ms: tuple[float, ...] = MEDIAN_FILTER_MS  # of event tasks: what to try before events are read from scores
    min_duration_ms: tuple[float, ...] = MIN_DURATION_MS  # and of which length events are to be

    def recordings(self, split: str, *, sample_rate: int = 32000, cache_dir: str | Path | None = None) -> Recordings:
        """Open a split at `sample_rate`, in Hz: from files of that rate, or else those of the highest rate, resampled.

        Names are file names, sorted. Waveforms have `clip_seconds`; targets of an event task say which classes are anywhere in
        them. `cache_dir` is that of `Recordings`. Raises FileNotFoundError for what is missing, UserError for a split that the task
        does not have, and for files or labels that do not fit the task.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        path, files = self._files(split)
        targets = np.zeros((len(files), len(self.labels)), np.uint8)
        names = sorted(files)
        for row, name in enumerate(names):
            entries = files[name]
            if self.is_event:
                classes = [event.class_index for event in self._events(path, name, entries, index)]
            else:
                classes = self._classes(path, name, entries, index)
            targets[row, classes] = 1
        folder = self.path / str(sample_rate if sample_rate in self.sample_rates else self.sample_rates[-1]) / split
        return Recordings(
            [folder / name for name in names],
            targets,
            names,
            sample_rate=sample_rate,
            clip_seconds=self.clip_seconds,
            cache_dir=cache_dir,
        )

    def events(self, split: str) -> list[list[LabelledEvent]]:
        """Return the events of each recording of a split of an event task, in the order of `recordings`; errors are the same."""
        index = {label: i for i, label in enumerate(self.labels)}
        path, files = self._files(split)
        return [self._events(path, name, files[name], index) for name in sorted(files)]

    def _files(self, split: str) -> tuple[Path, dict[str, object]]:
        if split not in self.splits:
            raise UserError(f"{self.path}: there is no split {split!r}; there are {', '.join(self.splits)}")
        path = self.path / f"{split}.json"
        files = _read_json(path)
        if not files:
            raise UserError(f"{path} names no files; {_ADVICE}")
        for name, labels in files.items():
            if not _is_plain(name):
                raise UserError(f"{path}: {name!r} is not a plain file name")
            if not isinstance(labels, list):
                raise UserError(f"{path}: {name} has no list of labels but {labels!r}")
        return path, files

    def _classes(self, path: Path, name: str, labels: list, index: dict[str, int]) -> list[int]:
        if self.single_label and len(labels) != 1:
            raise UserError(f"{path}: {name} has {len(labels)} labels; files of a multiclass task have exactly one")
        return [_class(path, name, str(label), index) for label in labels]

    def _events(self, path: Path, name: str, events: list, index: dict[str, int]) -> list[LabelledEvent]:
        found = []
        for event in events:
            times = (event.get("start"), event.get("end")) if isinstance(event, dict) else ()
            if not times or not all(type(time) in (int, float) for time in times) or "label" not in event:
                raise UserError(f"{path}: {name} has {event!r:.100} instead of label, start and end; {_ADVICE}")
            try:
                found.append(LabelledEvent(times[0] / 1000, times[1] / 1000, _class(path, name, str(event["label"]), index)))
            except UserError as error:
                raise error if str(path) in str(error) else UserError(f"{path}: {name}: {error}") from error
        return found


def read_task(path: str | Path) -> HearTask:
    """Read the folder of a task, but not its splits.

    Raises FileNotFoundError for what is missing and UserError for what is damaged.
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
    is_event = value("embedding_type", ("scene", "event")) == "event"
    single_label = value("prediction_type", ("multiclass", "multilabel")) == "multiclass"
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
    if is_event and single_label:
        raise UserError(f"{file}: prediction_type is multiclass; events may overlap, so those of an event task are multilabel")
    grid = _postprocessing(file, metadata)
    return HearTask(name, path, labels, single_label, split_mode, splits, metrics, seconds, tuple(sample_rates), is_event, *grid)


def _postprocessing(file: Path, metadata: dict[str, object]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return median filters and shortest events in ms that a task names, or the kit's."""
    params = metadata.get("evaluation_params") or {}
    grid = params.get("event_postprocessing_grid", {}) if isinstance(params, dict) else None
    lengths = []
    for key, default in (("median_filter_ms", MEDIAN_FILTER_MS), ("min_duration", MIN_DURATION_MS)):
        found = grid.get(key, default) if isinstance(grid, dict) else None
        is_list = isinstance(found, (list, tuple)) and len(found) > 0
        if not is_list or not all(type(ms) in (int, float) and 0 <= ms <= 1e4 for ms in found):
            raise UserError(f"{file}: evaluation_params are {params!r:.200} instead of lists of milliseconds; {_ADVICE}")
        lengths.append(tuple(found))
    return lengths[0], lengths[1]


def _class(path: Path, name: str, label: str, index: dict[str, int]) -> int:
    if label not in index:
        raise UserError(f"{path}: {name} has the label {label!r}, which is not in labelvocabulary.csv")
    return index[label]


def _read_vocabulary(path: Path) -> tuple[str, ...]:
    rows = read_table(path, ("idx", "label"), advice=_ADVICE)
    labels = {row["idx"]: row["label"] for row in rows}
    if not rows or labels.keys() != set(map(str, range(len(rows)))) or len(set(labels.values())) != len(rows):
        raise UserError(f"{path} does not number different labels from 0 on without a gap; {_ADVICE}")
    return tuple(labels[str(i)] for i in range(len(rows)))


def _read_json(path: Path) -> dict[str, object]:
    """The object that a file holds; FileNotFoundError, and UserError for anything else."""
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
