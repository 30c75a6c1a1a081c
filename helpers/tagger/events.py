"""Events with a beginning and an end, from the scores of successive windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.tagger.rows import Rows, span
from models.errors import UserError


@dataclass(frozen=True, repr=False)
class Event(Rows):
    """A stretch of time in which a class sounds, and its highest score there; `end` is None while it lasts."""

    label: str
    start: float  # seconds
    end: float | None
    score: float
    source: str | None = None  # the recording, None in a stream

    def __repr__(self) -> str:
        until = "..." if self.end is None else f"{self.end:.2f} s"
        return f"Event({self.label!r}, {self.start:.2f} to {until}, {self.score:.3f})"

    def to_dict(self) -> dict[str, Any]:
        return {**span(self.source, self.start, self.end), "label": self.label, "score": round(self.score, 6)}

    def to_rows(self) -> list[dict[str, Any]]:
        return [self.to_dict()]


class EventTracker:
    """Turn scores of successive windows into events; merges overlapping detections.

    Each window stands for a cell: the time that is nearer to its middle than to those of its neighbours. The first cell begins
    with the recording, the last one ends with it. An event begins where a class reaches `threshold`, and ends where the class
    falls below `off_threshold` (hysteresis: with one threshold, a wavering score would make many events).
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
        self._open: dict[int, tuple[float, float]] = {}  # class -> its beginning, its highest score
        self._middle: float | None = None  # of the last window
        self._end = 0.0

    def push(self, start: float, end: float, scores: np.ndarray) -> tuple[list[Event], list[Event]]:
        """Take the (K,) scores of the window from `start` to `end`, in seconds; return events that end, and those that begin.

        Both are sorted by score, highest first. An event that begins has no end yet.
        """
        middle = (start + end) / 2
        boundary = 0.0 if self._middle is None else (self._middle + middle) / 2
        self._middle, self._end = middle, end
        ends = [self._close(k, boundary) for k in list(self._open) if scores[k] < self.off_threshold]
        begins = []
        for k in self._classes:
            score = float(scores[k])
            if k in self._open:
                begin, peak = self._open[k]
                self._open[k] = (begin, max(peak, score))
            elif score >= self.threshold:
                self._open[int(k)] = (boundary, score)
                begins.append(Event(self.labels[k], boundary, None, score, self.source))
        by_score = {"key": lambda event: -event.score}
        return sorted(ends, **by_score), sorted(begins, **by_score)

    def finish(self) -> list[Event]:
        """Return the events that last until the end of the last window."""
        return sorted((self._close(k, self._end) for k in list(self._open)), key=lambda event: -event.score)

    def _close(self, k: int, end: float) -> Event:
        begin, peak = self._open.pop(k)
        return Event(self.labels[k], begin, end, peak, self.source)


def cell_edges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Edges (W + 1,) in seconds of the cells of W windows, see `EventTracker`."""
    middles = (starts + ends) / 2
    return np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, ends[-1:]])
