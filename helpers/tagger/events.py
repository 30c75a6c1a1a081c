"""Events that begin and end, made of the scores of successive windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import UserError


@dataclass(frozen=True)
class Event:
    """A stretch of time in which a class sounds, and its highest score there; `end` None while it lasts."""

    label: str
    start: float  # seconds
    end: float | None
    score: float


class EventTracker:
    """Turn scores of successive windows into events that begin and end, so that overlaps are reported once.

    Each window speaks for the time around its middle that is nearer to it than to its neighbours, the first one also for all
    before, the last one for all behind. These cells tile the recording. An event begins where a class reaches `threshold`, and
    lasts until the class falls below `off_threshold` (hysteresis: a score that wavers around one threshold would come and go).
    """

    def __init__(
        self, labels: Sequence[str], threshold: float, off_threshold: float | None = None, classes: Sequence[int] | None = None
    ) -> None:
        """`off_threshold` None is half of `threshold`. `classes`, indices, are those looked at (None: all)."""
        off_threshold = threshold / 2 if off_threshold is None else off_threshold
        if not 0 <= off_threshold <= threshold <= 1:
            raise UserError(f"thresholds are {threshold} and, to end, {off_threshold}; needed: 0 <= end <= begin <= 1")
        self.labels, self.threshold, self.off_threshold = labels, threshold, off_threshold
        self._classes = np.arange(len(labels)) if classes is None else np.asarray(classes, int)
        self._open: dict[int, tuple[float, float]] = {}  # class -> where it began, its highest score
        self._middle: float | None = None  # of the last window
        self._end = 0.0

    def push(self, start: float, end: float, scores: np.ndarray) -> tuple[list[Event], list[Event]]:
        """Take the (K,) scores of the window from `start` to `end`, in seconds; return events that end, and those that begin.

        The likeliest come first; an event that begins has no end yet.
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
                begins.append(Event(self.labels[k], boundary, None, score))
        by_score = {"key": lambda event: -event.score}
        return sorted(ends, **by_score), sorted(begins, **by_score)

    def finish(self) -> list[Event]:
        """End all events that are left with the last window."""
        return sorted((self._close(k, self._end) for k in list(self._open)), key=lambda event: -event.score)

    def _close(self, k: int, end: float) -> Event:
        begin, peak = self._open.pop(k)
        return Event(self.labels[k], begin, end, peak)


def cell_edges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Edges (W + 1,) in seconds of the cells that W windows speak for, see `EventTracker`."""
    middles = (starts + ends) / 2
    return np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, ends[-1:]])
