"""Your own recordings with events in time, cut into clips: a table with start and end, or labels of Raven or Audacity."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.folders.candidates import Candidate
from datasets.folders.folder import FolderData, groups_of, listed, usable
from datasets.folders.tables import from_table
from datasets.strong_clips import StrongClips
from datasets.strong_labels import LabelledEvent, merged
from models.errors import UserError

_TAIL = 0.1  # seconds: a shorter end of a recording makes no clip

Times = tuple[LabelledEvent, ...] | None  # None: only labels are known


@dataclass(frozen=True)
class StrongFolder:
    """Clips of equal length of recordings, and what sounds in them when."""

    data: FolderData  # a clip is a segment of its recording; targets are the classes in it
    events: tuple[Times, ...]  # of each clip, in seconds from its beginning

    def clips(self, indices: Iterable[int], *, frames: int, step: float, with_weak: bool = True, **options: Any) -> StrongClips:
        """Open some of the clips; `options` are those of `Recordings`. Without `with_weak`, clips without times are left out."""
        kept = [index for index in indices if with_weak or self.events[index] is not None]
        if not kept:
            raise UserError("none of the clips to validate on has events in time; give some their times in the table")
        events = {position: self.events[index] for position, index in enumerate(kept)}
        recordings = self.data.clips(kept, **options)
        return StrongClips(recordings, events, len(self.data.class_names), frames=frames, step=step)

    def report(self) -> str:
        """As `FolderData.report`, with the number of events."""
        count = sum(len(events or ()) for events in self.events)
        weak = sum(events is None for events in self.events)
        what = f"{count} events in {len(self.events) - weak} clips" + (f", {weak} clips with labels alone" if weak else "")
        return f"{what}\n{self.data.report()}"


def scan_events(root: str | Path, csv: str | Path, clip_seconds: float, *, decode_all: bool = False) -> StrongFolder:
    """Read a table of events below a folder, check its recordings, and cut these into clips of so many seconds.

    The table is one that `folder.scan` reads. Rows with start and end are events. A recording whose rows have no times has labels
    alone, which count for its first clip, or, without labels, no event. What cannot be used is left out and reported.
    """
    root = Path(os.path.realpath(Path(root).expanduser()))
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the one that holds the recordings")
    found = from_table(root, Path(csv).expanduser())
    of_recording: dict[str, list[Candidate]] = {}
    for candidate in usable(found, decode_all):
        of_recording.setdefault(candidate.real_path, []).append(candidate)
    labels = sorted({label for rows in of_recording.values() for candidate in rows for label in candidate.labels})
    if not any(candidate.segment and candidate.labels for rows in of_recording.values() for candidate in rows):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out[:3])
        raise UserError(
            f"{csv} names no usable event with start and end{reasons and f' ({reasons})'}; for labels alone, leave --strong out"
        )
    index = {label: k for k, label in enumerate(labels)}
    clips: list[tuple[Candidate, tuple[float, float], Times, np.ndarray]] = []
    for rows in of_recording.values():
        clips += _cut(rows, index, clip_seconds)
    used = [candidate for candidate, *_ in clips]
    data = FolderData(
        class_names=tuple(labels),
        paths=tuple(candidate.path for candidate in used),
        names=tuple(f"{candidate.name} {start:g}-{end:g} s" for candidate, (start, end), *_ in clips),
        targets=np.stack([target for *_, target in clips]),
        seconds=np.array([end - start for _, (start, end), *_ in clips]),
        single_label=False,
        splits=tuple(candidate.split for candidate in used) if "split" in found.columns else None,
        folds=tuple(candidate.fold for candidate in used) if "fold" in found.columns else None,
        groups=groups_of(used),
        left_out=listed(found.left_out),
        skipped=dict(found.skipped),
        warnings=listed(sorted(found.warnings)),
        segments=tuple(times for _, times, *_ in clips),
    )
    return StrongFolder(data, tuple(events for *_, events, _ in clips))


def _cut(
    rows: list[Candidate], index: dict[str, int], clip_seconds: float
) -> list[tuple[Candidate, tuple[float, float], Times, np.ndarray]]:
    """The clips of a recording, by its rows: a row of it, start and end, events and classes of each."""
    timed = [row for row in rows if row.segment]
    whole = rows[0]
    events = merged(LabelledEvent(*row.segment, index[label]) for row in timed for label in row.labels)
    labels = [label for row in rows if not row.segment for label in row.labels]
    if labels and not timed:
        target = np.zeros(len(index), np.uint8)
        target[[index[label] for label in labels]] = 1
        return [(whole, (0.0, min(clip_seconds, whole.recording_seconds)), None, target)]
    clips = []
    for number in range(max(1, math.ceil((whole.recording_seconds - _TAIL) / clip_seconds))):
        start = number * clip_seconds
        end = min(start + clip_seconds, whole.recording_seconds)
        inside = tuple(
            LabelledEvent(max(event.onset - start, 0.0), min(event.offset, end) - start, event.class_index)
            for event in events
            if event.onset < end and event.offset > start
        )
        target = np.zeros(len(index), np.uint8)
        target[[event.class_index for event in inside]] = 1
        clips.append((whole, (start, end), inside, target))
    return clips
