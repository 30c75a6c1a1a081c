"""Events with a beginning and an end, from the scores of successive windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.tagger.rows import Rows, extras, span
from models.errors import UserError

THRESHOLD = 0.3  # score from which on an event is reported


@dataclass(frozen=True, repr=False)
class Event(Rows):
    """A stretch of time in which a class sounds, with its highest and its mean score there; `end` is None while it lasts."""

    label: str
    start: float  # seconds
    end: float | None
    score: float  # the highest
    source: str | None = None  # the recording, None in a stream
    mean: float | None = None  # score, over the windows of the event; None while it lasts

    def __repr__(self) -> str:
        until = "..." if self.end is None else f"{self.end:.2f} s"
        return f"Event({self.label!r}, {self.start:.2f} to {until}, {self.score:.3f})"

    def to_dict(self) -> dict[str, Any]:
        mean = None if self.mean is None else round(self.mean, 6)
        return {**span(self.source, self.start, self.end), "label": self.label, "score": round(self.score, 6), "mean": mean}

    def to_rows(self) -> list[dict[str, Any]]:
        return [self.to_dict()]


@dataclass(frozen=True, eq=False, repr=False)
class RecordingEvents(Rows, Sequence[Event]):
    """All events of a recording, by their beginning; a sequence of `Event`."""

    source: str
    start: float  # seconds, of what was read
    end: float
    events: tuple[Event, ...]
    sample_rate: int  # of the recording, Hz
    warnings: tuple[str, ...] = ()
    channel: int | None = None

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: Any) -> Any:
        return self.events[index]

    def __repr__(self) -> str:
        return f"RecordingEvents({self.source!r}, {self.start:.2f} to {self.end:.2f} s, {len(self.events)} events)"

    def to_dict(self) -> dict[str, Any]:
        events = [{key: value for key, value in event.to_dict().items() if key != "source"} for event in self.events]
        return {**span(self.source, self.start, self.end), "events": events, **extras(self.warnings, self.channel)}

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row for each event; where there is none, one without label and scores."""
        nothing = {**span(self.source, self.start, self.end), "label": None, "score": None, "mean": None}
        rows = [row for event in self.events for row in event.to_rows()] or [nothing]
        return [{**row, **extras((), self.channel)} for row in rows]


def sorted_events(events: Iterable[Event]) -> list[Event]:
    """Sort events by their beginning, those that begin together by their scores, highest first."""
    return sorted(events, key=lambda event: (event.start, -event.score))


class EventTracker:
    """Turn scores of successive windows into events; merges overlapping detections.

    Each window stands for a cell: the time that is nearer to its middle than to those of its neighbours. The first cell begins
    with the first window, the last one ends with the last window. An event begins where a class reaches `threshold`, and ends
    where the class falls below `off_threshold` (hysteresis: with one threshold, a wavering score would make many events).
    """

    def __init__(
        self,
        labels: Sequence[str],
        threshold: float,
        off_threshold: float | None = None,
        classes: Sequence[int] | None = None,
        source: str | None = None,
    ) -> None:
        """`off_threshold` None is half of `threshold`. `classes` are indices (None: all). `source` names the recording."""
        off_threshold = threshold / 2 if off_threshold is None else off_threshold
        if not 0 <= off_threshold <= threshold <= 1:
            raise UserError(f"thresholds are {threshold} and, to end, {off_threshold}; needed: 0 <= end <= begin <= 1")
        self.labels, self.threshold, self.off_threshold, self.source = labels, threshold, off_threshold, source
        self._classes = np.arange(len(labels)) if classes is None else np.asarray(classes, int)
        self._open: dict[int, tuple[float, list[float]]] = {}  # class -> its beginning, its scores so far
        self._middle: float | None = None  # of the last window
        self._end = 0.0

    def push(self, start: float, end: float, scores: np.ndarray) -> tuple[list[Event], list[Event]]:
        """Take the (K,) scores of the window from `start` to `end`, in seconds; return events that end, and those that begin.

        Both are sorted by score, highest first. An event that begins has no end yet.
        """
        middle = (start + end) / 2
        boundary = start if self._middle is None else (self._middle + middle) / 2
        self._middle, self._end = middle, end
        ends = [self._close(k, boundary) for k in list(self._open) if scores[k] < self.off_threshold]
        begins = []
        for k in self._classes:
            score = float(scores[k])
            if k in self._open:
                self._open[k][1].append(score)
            elif score >= self.threshold:
                self._open[int(k)] = (boundary, [score])
                begins.append(Event(self.labels[k], boundary, None, score, self.source))
        by_score = {"key": lambda event: -event.score}
        return sorted(ends, **by_score), sorted(begins, **by_score)

    def finish(self) -> list[Event]:
        """Return the events that last until the end of the last window."""
        return sorted((self._close(k, self._end) for k in list(self._open)), key=lambda event: -event.score)

    def _close(self, k: int, end: float) -> Event:
        begin, scores = self._open.pop(k)
        return Event(self.labels[k], begin, end, max(scores), self.source, sum(scores) / len(scores))


def cell_edges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Edges (W + 1,) in seconds of the cells of W windows, see `EventTracker`."""
    middles = (starts + ends) / 2
    return np.concatenate([starts[:1], (middles[1:] + middles[:-1]) / 2, ends[-1:]])
