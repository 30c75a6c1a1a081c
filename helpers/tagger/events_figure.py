"""The events of a recording as a figure, drawn without a display. Importing this imports matplotlib, but not torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from datasets.sound import open_sound
from helpers.tagger.selection import find_classes
from helpers.tagger.timeline_figure import RATE, draw_spectrogram, log_mel_picture, name_rows, unit_of_time
from models.errors import UserError
from models.files import write_atomically

if TYPE_CHECKING:
    from datasets.sound import AudioSource
    from helpers.tagger.events import RecordingEvents
    from helpers.tagger.frames import Frames

COLUMNS = 3000  # of the scores at most, about twice its pixels


def events_figure(
    audio: AudioSource,
    frames: Frames,
    events: RecordingEvents,
    path: str | Path,
    sample_rate: float | None = None,
    *,
    count: int = 10,
    labels: Sequence[str] | None = None,
) -> None:
    """Draw a log-mel spectrogram above a row for each class: bars for its events, its scores beneath, on one time axis.

    Rows are the `count` classes with the highest scores of events; where there are no events, of frames, among `labels` (None:
    all). `audio` is read once more. The suffix of `path` decides the format; the file appears under its name when complete.
    """
    path = Path(path)
    if count < 1:
        raise UserError(f"count is {count}; it must be 1 or more")
    start, end = float(frames.times[0]), frames.end
    sound = open_sound(audio, sample_rate, name=frames.source, start=start, end=end, channel=frames.channel)
    picture = log_mel_picture(sound.at_rate(RATE), end - start)
    unit, per_unit = unit_of_time(end)
    rows = _classes(frames, events, count, labels)

    figure = Figure(figsize=(11, 3.4 + 0.45 * len(rows)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 0.45 * len(rows) + 0.2])
    draw_spectrogram(above, picture, frames.source, start / per_unit, end / per_unit)
    times, scores = _thinned(frames, rows)
    for row, (k, values) in enumerate(zip(rows, scores.T, strict=True)):
        colour = f"C{row % 10}"
        bars = [
            (event.start / per_unit, (event.end - event.start) / per_unit) for event in events if event.label == frames.labels[k]
        ]
        below.broken_barh(bars, (row - 0.42, 0.24), color=colour)
        base = row + 0.45  # the scores reach from there to the bars
        below.fill_between(times / per_unit, base, base - 0.6 * values, step="post", color=colour, alpha=0.3, linewidth=0)
    name_rows(below, [frames.labels[k] for k in rows])
    below.set_xlim(start / per_unit, end / per_unit)
    below.set_xlabel(f"{unit}; bars: events, areas: scores of frames from 0 to 1")
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=130))


def _classes(frames: Frames, events: RecordingEvents, count: int, labels: Sequence[str] | None) -> list[int]:
    """Return the classes of the rows."""
    if not len(events):
        allowed = np.asarray(find_classes(labels, frames.labels) or range(len(frames.labels)))
        return allowed[np.argsort(-frames.scores[:, allowed].max(0), kind="stable")[:count]].tolist()
    highest: dict[str, float] = {}
    for event in events:
        highest[event.label] = max(event.score, highest.get(event.label, 0.0))
    return [frames.labels.index(label) for label in sorted(highest, key=lambda label: -highest[label])[:count]]


def _thinned(frames: Frames, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return edges in seconds and the highest scores between them, of all frames or of as many as can be seen."""
    per_column = -(-len(frames) // COLUMNS)
    firsts = np.arange(0, len(frames), per_column)
    scores = np.maximum.reduceat(frames.scores[:, classes], firsts)
    return np.append(frames.times[firsts], frames.end), np.concatenate([scores, scores[-1:]])
