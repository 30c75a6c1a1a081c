"""AudioSet Strong: 447 classes in time, on about 100,000 training and 17,000 evaluation clips of AudioSet.

The audio is that of `datasets.audioset`, HDF5 files, parquet files or tars; tables of events lie next to it, see `TABLES`. Any
corpus of this form will do, with a file `CLASSES` next to it where its classes are others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets import audioset
from datasets.clip import ClipDataset
from datasets.csv_table import read_table
from datasets.labels import audioset_mids, audioset_strong_labels, audioset_strong_mids
from datasets.strong_clips import StrongClips
from datasets.strong_labels import ClipRows, Events, read_strong_labels
from models.errors import UserError

TABLES = {part: f"audioset_{part}_strong.tsv" for part in ("train", "validation", "eval")}
CLASSES = "strong_classes.tsv"  # columns mid and display_name, in the order of the targets
_AUDIO = {"train": audioset.training_set, "validation": audioset.validation_set, "eval": audioset.evaluation_set}

logger = logging.getLogger(__name__)


class Classes(NamedTuple):
    """The classes of a corpus, by index."""

    labels: tuple[str, ...]
    mids: tuple[str, ...]


def read_classes(dataset_dir: str | Path) -> Classes:
    """The classes that the corpus in a folder names, or AudioSet Strong's 447."""
    path = audioset.LOCATION.resolve(dataset_dir) / CLASSES
    if not path.is_file():
        return Classes(audioset_strong_labels(), audioset_strong_mids())
    rows = read_table(path, ("mid", "display_name"), delimiter="\t")
    classes = Classes(*(tuple(row[column] for row in rows) for column in ("display_name", "mid")))
    for names in classes:
        if not names or len(set(names)) < len(names):
            raise UserError(f"{path} must name at least one class, and each of them once")
    return classes


def strong_set(
    part: str,
    dataset_dir: str | Path,
    classes: Classes,
    *,
    frames: int,
    step: float,
    table: str | Path | None = None,
    with_weak: bool = False,
    **options: Any,
) -> StrongClips:
    """The clips of a part ("train", "validation" or "eval") that its table names, with targets of `frames` of `step` seconds.

    `table` is the part's in `TABLES` unless given. Where there is none to validate on, the part is that of evaluation.
    `with_weak` adds the clips that the table does not name and that have a label among the classes, without times. `options` are
    the sample rate and the clip length of `ClipDataset`. Clips that the table names and the audio lacks are counted and logged.

    Events of other classes are an error in training; otherwise they are left out and counted, as AudioSet Strong's evaluation has 9
    classes of its own.
    """
    folder = audioset.LOCATION.resolve(dataset_dir)
    if part == "validation" and table is None and not (folder / TABLES[part]).is_file():
        part = "eval"
    table = Path(table) if table else folder / TABLES[part]
    if not table.is_file():
        raise FileNotFoundError(
            f"{table} not found; AudioSet Strong's tables lie next to the audio, as {', '.join(TABLES.values())}"
        )
    events = read_strong_labels(table, *classes, seconds=options.get("clip_seconds", 10.0), leave_out_unknown=part != "train")
    clips = _AUDIO[part](folder, **options)
    clips.random_crop = False  # events count from the beginning
    of_clips = events_of(clips.names, events, table)
    columns = clip_label_columns(classes.mids)
    if with_weak:
        has_label = labelled(clips, list(columns.values()))
        of_clips |= {index: None for index in np.flatnonzero(has_label).tolist() if index not in of_clips}
    return StrongClips(clips, of_clips, len(classes.labels), frames=frames, step=step, columns=columns)


def events_of(names: Sequence[str], events: Events, table: Path) -> dict[int, list | None]:
    """The events of the clips with these names that a table has, by index; names are compared as by `ClipRows`.

    Clips of the table without audio are counted and logged. Raises UserError where no clip is found.
    """
    clips = list(events)
    rows = ClipRows(clips)
    found: dict[int, list | None] = {}
    named = set()
    for index, name in enumerate(names):
        row = rows.find(name)
        if row is not None and row not in named:
            named.add(row)
            found[index] = events[clips[row]]
    lacking = [clip for row, clip in enumerate(clips) if row not in named]
    if not found:
        raise UserError(
            f"{table} names none of the {len(names)} clips: it has names such as {_some(events)}, the audio {_some(names)}"
        )
    if lacking:
        logger.warning("%d of the %d clips in %s are not in the audio, such as %s", len(lacking), len(events), table, lacking[0])
    return found


def clip_label_columns(mids: Sequence[str]) -> dict[int, int]:
    """From the index of a class to that of AudioSet's 527 classes with the same MID, for those that have one."""
    of_mid = {mid: column for column, mid in enumerate(audioset_mids())}
    return {k: of_mid[mid] for k, mid in enumerate(mids) if mid in of_mid}


def labelled(clips: ClipDataset, columns: Sequence[int]) -> np.ndarray:
    """Whether a clip has a label among these columns of its targets, (N,) bool."""
    return clips.targets()[:, list(columns)].any(1)


def _some(names: Sequence[str] | Events) -> str:
    return ", ".join(map(repr, list(names)[:2]))
