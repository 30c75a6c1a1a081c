"""Events from the scores of frames: median filter along time, a threshold for each class, runs of active frames.

The decoding is that of EfficientSED (Morocutti et al., EUSIPCO 2025), whose median window for convolutional networks is 9 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datasets.labels import default_labels
from helpers.median_filter import MEDIAN_FRAMES, check_median
from helpers.tagger.events import THRESHOLD, Event, sorted_events
from models.errors import UserError


def decode(
    scores: np.ndarray,
    step_seconds: float,
    thresholds: float | np.ndarray = THRESHOLD,
    median_frames: int = MEDIAN_FRAMES,
    duration: float | None = None,
    *,
    start: float = 0.0,
    labels: Sequence[str] | None = None,
    classes: Sequence[int] | None = None,
    source: str | None = None,
) -> list[Event]:
    """Return the events in scores (T, K) of the frames of a whole recording, by their beginning.

    A class is active where the median of its scores is above the threshold, one for all classes or (K,). Events are runs of active
    frames, cut at `duration` in seconds (None: the end of the last frame); the first frame is at `start` seconds. `labels` None are
    `datasets.labels.default_labels`.
    """
    labels = default_labels(scores.shape[1]) if labels is None else labels
    decoder = EventDecoder(labels, step_seconds, thresholds, median_frames, classes=classes, start=start, source=source)
    end = start + (len(scores) * step_seconds if duration is None else duration)
    ended = [event for event in decoder.push(scores) + decoder.finish() if event.end is not None]
    return sorted_events(replace(event, end=min(event.end, end)) for event in ended if event.start < end)


class EventDecoder:
    """`decode` of scores that come in pieces of any number of frames, in constant memory.

    An event is known `median_frames // 2` frames after its first or last frame. The `score` and `mean` of an event are those of the
    filtered scores, so they are above the threshold. An event that begins has no end yet.
    """

    def __init__(
        self,
        labels: Sequence[str],
        step_seconds: float,
        thresholds: float | np.ndarray = THRESHOLD,
        median_frames: int = MEDIAN_FRAMES,
        *,
        classes: Sequence[int] | None = None,
        start: float = 0.0,
        source: str | None = None,
    ) -> None:
        """`classes` are indices (None: all); `start` is the time of the first frame in seconds; `source` names the recording."""
        thresholds = np.asarray(thresholds, float)
        if thresholds.shape not in ((), (len(labels),)) or not ((thresholds >= 0) & (thresholds <= 1)).all():
            raise UserError(f"thresholds are {thresholds.tolist()!r:.100}; needed: a number from 0 to 1, or {len(labels)} of them")
        self.labels, self.step_seconds, self.start, self.source = labels, step_seconds, start, source
        self._classes = np.arange(len(labels)) if classes is None else np.asarray(classes, int)
        self._thresholds = np.broadcast_to(thresholds, (len(labels),))[self._classes]
        self.median_frames = check_median(median_frames)
        self._half = median_frames // 2
        self._held = np.zeros((0, len(self._classes)), np.float32)  # scores that the filter still needs
        self._mirrored = self._half == 0  # whether these begin with the mirror image of the first frames
        self._done = 0  # frames
        self._open: dict[int, _Run] = {}  # by position in the classes

    def push(self, scores: np.ndarray) -> list[Event]:
        """Take the scores (n, K) of the next frames; return the events that begin and that end, in the order of time."""
        self._held = np.concatenate([self._held, scores[:, self._classes]])
        if not self._mirrored:
            if len(self._held) < self._half:
                return []
            self._held = np.concatenate([self._held[: self._half][::-1], self._held])
            self._mirrored = True
        return self._decided()

    def finish(self, end: float | None = None) -> list[Event]:
        """Return the rest, of events that last until the `end` of the sound in seconds (None: of the last frame)."""
        if self._half and len(self._held):
            before = 0 if self._mirrored else self._half
            self._held = np.pad(self._held, ((before, self._half), (0, 0)), "symmetric")
        events = self._decided()
        last = self.start + self._done * self.step_seconds
        end = last if end is None else min(end, last)
        return events + [self._close(k, end) for k in sorted(self._open)]

    def _decided(self) -> list[Event]:
        """Return what changes in the frames whose neighbours are all there."""
        count = max(0, len(self._held) - 2 * self._half)
        held, self._held = self._held, self._held[count:]
        if count == 0:
            return []
        above = held > self._thresholds
        # The median is above a threshold where more than half of its frames are: counting is faster than sorting.
        counts = np.concatenate([np.zeros((1, above.shape[1]), int), above.cumsum(0)])
        active = counts[2 * self._half + 1 :] - counts[:count] > self._half
        changes = []
        for k in sorted({*np.flatnonzero(active.any(0)).tolist(), *self._open}):
            changes += self._follow(k, active[:, k], held[:, k])
        self._done += count
        return [event for _, event in sorted(changes, key=lambda change: change[0])]

    def _follow(self, k: int, active: np.ndarray, held: np.ndarray) -> list[tuple[float, Event]]:
        """Return (time, event) of what begins and ends in a class; `held` has half a filter more on each side than `active`."""
        medians = np.median(np.lib.stride_tricks.sliding_window_view(held, 2 * self._half + 1), axis=-1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]))).reshape(-1, 2)
        changes = []
        if k in self._open and not active[0]:
            changes.append(self._ended(k, 0))
        for first, last in edges.tolist():
            if k not in self._open:
                time = self._time(first)
                self._open[k] = _Run(time)
                changes.append((time, Event(self.labels[self._classes[k]], time, None, float(medians[first]), self.source)))
            self._open[k].add(medians[first:last])
            if last < len(active):
                changes.append(self._ended(k, last))
        return changes

    def _time(self, frame: int) -> float:
        return self.start + (self._done + frame) * self.step_seconds

    def _ended(self, k: int, frame: int) -> tuple[float, Event]:
        time = self._time(frame)
        return time, self._close(k, time)

    def _close(self, k: int, end: float) -> Event:
        run = self._open.pop(k)
        return Event(self.labels[self._classes[k]], run.start, end, run.highest, self.source, run.total / run.frames)


class _Run:
    """Active frames of a class."""

    def __init__(self, start: float) -> None:
        self.start, self.highest, self.total, self.frames = start, 0.0, 0.0, 0

    def add(self, scores: np.ndarray) -> None:
        self.highest = max(self.highest, float(scores.max()))
        self.total += float(scores.sum(dtype=float))
        self.frames += len(scores)
