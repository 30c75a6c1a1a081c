"""Strong labels: which sounds of a clip last from when to when, in tables, as events and as targets of frames.

A table has one row for each event, with these columns (of either name):

    clip: segment_id, filename or path      the clip, or its file
    onset: start_time_seconds, onset or start
    offset: end_time_seconds, offset or end
    label: label, event_label or labels     a class name, or its identifier (MID)

AudioSet Strong (segment_id is a YouTube id and the start of the clip in ms), DESED and tables of your own are of this form. A row
whose times and label are empty stands for a clip without events.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.csv_table import number, parse_own_table, read_text, write_table
from models.errors import UserError

STEP_SECONDS = 0.04  # a frame of the frame-wise models
COLUMN_NAMES = {
    "clip": ("segment_id", "filename", "path"),
    "onset": ("start_time_seconds", "onset", "start"),
    "offset": ("end_time_seconds", "offset", "end"),
    "label": ("label", "event_label", "labels"),
}
_SUFFIX = re.compile(r"\.(mp3|wav|flac|ogg|m4a|opus)$", re.IGNORECASE)
_AUDIOSET_NAME = re.compile(r"Y?([A-Za-z0-9_-]{11})(_\d+)?")  # YouTube id, start in milliseconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, order=True, slots=True)
class LabelledEvent:
    """A sound of one class from `onset` to `offset`, in seconds of its clip. Raises UserError unless 0 <= onset <= offset."""

    onset: float
    offset: float
    class_index: int

    def __post_init__(self) -> None:
        if not 0 <= self.onset < math.inf:
            raise UserError(f"the event starts at {self.onset:g} s; it must start at 0 s, the beginning of its clip, or later")
        if not self.onset <= self.offset < math.inf:
            raise UserError(f"the event ends at {self.offset:g} s, before it starts at {self.onset:g} s; swap or correct its times")


Events = dict[str, list[LabelledEvent]]  # by clip; a clip without events has an empty list


def read_strong_labels(
    path: str | Path,
    labels: Sequence[str],
    mids: Sequence[str] = (),
    *,
    seconds: float | Mapping[str, float] | None = None,
    leave_out_unknown: bool = False,
) -> Events:
    """Read a table; the events of each clip by onset, overlapping or touching ones of one class merged.

    `labels` are the class names by index, `mids` their identifiers; either may be in the table. `seconds` is the length of all
    clips, or of each: what lies behind it is cut off. `leave_out_unknown` leaves out events of other classes, and clips with no
    others, as the published evaluation does. What is merged, cut or left out is counted and logged, a line for each kind.

    Raises FileNotFoundError, and UserError, with the line, for a table of another form, unknown labels, negative or reversed times.
    """
    path = Path(path)
    index = {name: k for names in (labels, mids) for k, name in enumerate(names)}
    remarks: dict[str, list[str]] = {}
    found: Events = {}
    for line, clip, onset, offset, label in _rows(path):
        if not (onset or offset or label):
            found.setdefault(clip, [])
            continue
        try:
            if label not in index and not leave_out_unknown:
                raise UserError(f"label {label!r} is unknown; the {len(labels)} classes are {_some(labels)}")
            event = LabelledEvent(number(onset), number(offset), index.get(label, 0))
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from error
        if label not in index:
            remarks.setdefault("of other classes, left out", []).append(f"{label!r} in {clip}")
            continue
        events = found.setdefault(clip, [])
        end = seconds.get(clip, math.inf) if isinstance(seconds, Mapping) else seconds or math.inf
        where = f"{label} in {clip}, {event.onset:g} to {event.offset:g} s"
        if event.onset >= end:
            remarks.setdefault("behind the end of their clips, left out", []).append(where)
        elif event.onset == event.offset:
            remarks.setdefault("without any length, left out", []).append(where)
        else:
            if event.offset > end:
                remarks.setdefault("beyond the end of their clips, cut", []).append(where)
                event = LabelledEvent(event.onset, end, event.class_index)
            events.append(event)
    for clip, events in found.items():
        found[clip] = merged(events)
        if overlaps := _overlaps(events):
            remarks.setdefault("that overlap others of their class, merged", []).extend(
                [f"{labels[overlaps[0]]} in {clip}"] * len(overlaps)
            )
    for remark, where in remarks.items():
        logger.warning("%s has %d events %s, the first %s", path, len(where), remark, where[0])
    return found


def table_labels(path: str | Path) -> tuple[str, ...]:
    """The labels in a table, sorted; errors as those of `read_strong_labels`."""
    return tuple(sorted({label for *_, label in _rows(Path(path)) if label}))


def write_strong_labels(path: str | Path, events: Mapping[str, Iterable[LabelledEvent]], labels: Sequence[str]) -> None:
    """Write a table as AudioSet Strong's, with `labels` (names or MIDs, by class index); clips without events have an empty row."""
    rows: list[tuple[object, ...]] = [tuple(COLUMN_NAMES[column][0] for column in COLUMN_NAMES)]
    for clip, of_clip in events.items():
        rows += [(clip, f"{e.onset:.3f}", f"{e.offset:.3f}", labels[e.class_index]) for e in of_clip] or [(clip, "", "", "")]
    write_table(path, rows, delimiter="\t")


def merged(events: Iterable[LabelledEvent]) -> list[LabelledEvent]:
    """Events by onset, with those of one class that overlap or touch made one."""
    result: list[LabelledEvent] = []
    last: dict[int, int] = {}  # position of each class's last event
    for event in sorted(events):
        at = last.get(event.class_index)
        if at is not None and event.onset <= result[at].offset:
            result[at] = LabelledEvent(result[at].onset, max(result[at].offset, event.offset), event.class_index)
        else:
            last[event.class_index] = len(result)
            result.append(event)
    return result


class ClipRows:
    """The rows of clips in a table or file, found by name: equal but for folder and suffix or, of AudioSet, by the YouTube id.

    The id is that of Yid.mp3, as audio is called, of id_30000, a segment_id, or alone, if a single row has it. Names with different
    starts are different clips.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._by_stem = {_stem(name): row for row, name in enumerate(names)}
        segments = [_segment(name) for name in names]
        counts = Counter(found for found, _ in segments)
        self._by_id = {found: (row, start) for row, (found, start) in enumerate(segments) if found and counts[found] == 1}

    def find(self, name: str) -> int | None:
        found, start = _segment(name)
        row, other = self._by_id.get(found, (None, ""))
        return self._by_stem.get(_stem(name), row if start == other or not (start and other) else None)


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name.rpartition("/")[2])


def _segment(name: str) -> tuple[str, str]:
    """The YouTube id and the start in a name, or empty ones."""
    match = _AUDIOSET_NAME.fullmatch(_stem(name))
    return (match[1], match[2] or "") if match else ("", "")


def encode(events: Iterable[LabelledEvent], num_classes: int, frames: int = 250, step: float = STEP_SECONDS) -> np.ndarray:
    """Targets of the frames of a clip, (K, T) float32 of 0 and 1, T = `frames` of `step` seconds.

    An event is in each frame that it touches: from floor(onset / step) up to, not including, ceil(offset / step).
    """
    target = np.zeros((num_classes, frames), np.float32)
    for event in events:
        first, last = (round(min(time / step, frames), 6) for time in (event.onset, event.offset))  # 0.28 / 0.04 is above 7
        target[event.class_index, math.floor(first) : math.ceil(last)] = 1
    return target


def _rows(path: Path) -> Iterable[tuple[int, str, str, str, str]]:
    """Line, clip, onset, offset and label of each row, as texts."""
    rows = parse_own_table(read_text(path, "give the table of the events"), path, (), None)
    there = list(rows[0][1]) if rows else []
    names = [next((name for name in COLUMN_NAMES[column] if name in there), None) for column in COLUMN_NAMES]
    for column, name in zip(COLUMN_NAMES, names, strict=True):
        if name is None:
            raise UserError(
                f"{path} has no column {' or '.join(COLUMN_NAMES[column])}; it has "
                f"{', '.join(there) or 'no rows'}, so the {column} of an event is not known"
            )
    for line, row in rows:
        cells = [row[name] for name in names]
        if not cells[0]:
            raise UserError(f"{path}, line {line}: the row names no clip; fill in {names[0]}")
        yield line, *cells


def _overlaps(events: Iterable[LabelledEvent]) -> list[int]:
    """The class of each event that begins before an earlier one of its class has ended."""
    ends: dict[int, float] = {}
    found = []
    for event in sorted(events):
        if event.onset < ends.get(event.class_index, 0.0):
            found.append(event.class_index)
        ends[event.class_index] = max(ends.get(event.class_index, 0.0), event.offset)
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
