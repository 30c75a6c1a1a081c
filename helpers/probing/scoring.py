"""How the outputs of a probe are scored: by targets of recordings, or as events in time.

Turian et al., HEAR: Holistic Evaluation of Audio Representations, PMLR 176, 2022, and its evaluation kit, heareval 2021.1.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np
from scipy.ndimage import median_filter

from datasets.strong_labels import LabelledEvent

EVENT_METRICS = {"event_onset_200ms_fms": 0.2, "event_onset_50ms_fms": 0.05}  # by HEAR's names: seconds that an onset may be off


class Scoring(Protocol):
    """Scores of the outputs (n, K) of a network for some rows, of which the order counts alone, or their sign (`EventScoring`)."""

    def highest(self, rows: np.ndarray) -> float:
        """Return the score of outputs that are all right; NaN where it is undefined."""

    def choose(self, rows: np.ndarray, outputs: np.ndarray) -> tuple[float, Any]:
        """Return the score, and how events were read from the outputs where that is to be chosen."""

    def score(self, rows: np.ndarray, outputs: np.ndarray, choice: Any) -> float:
        """Return the score by what `choose` found on other rows."""


class ClipScoring:
    """A metric of targets and scores (N, K) of recordings."""

    def __init__(self, targets: np.ndarray, metric: Callable[[np.ndarray, np.ndarray], float]) -> None:
        self._targets, self._metric = targets, metric

    def highest(self, rows: np.ndarray) -> float:
        targets = self._targets[rows]
        return self._metric(targets, targets)

    def choose(self, rows: np.ndarray, outputs: np.ndarray) -> tuple[float, None]:
        return self._metric(self._targets[rows], outputs), None

    def score(self, rows: np.ndarray, outputs: np.ndarray, choice: None) -> float:
        return self.choose(rows, outputs)[0]


class EventScoring:
    """Onset F-measure of events that are read from logits at timestamps, each of which is a row.

    A class is active where the median of its logits over some ms is positive; events are runs of active timestamps, from the first
    to the last one, that have a length. Both are chosen from a grid where a network is validated. An event is found where a
    detection of its class begins within the collar; each counts once. F1 is that of all classes and recordings together.
    """

    def __init__(
        self,
        recordings: np.ndarray,
        times: np.ndarray,
        truth: Sequence[Sequence[LabelledEvent]],
        *,
        collar: float,
        median_filter_ms: Sequence[float],
        min_duration_ms: Sequence[float],
    ) -> None:
        """`recordings` (N,) is the number of each row's recording, `times` (N,) its time in ms; rows of a recording are successive.

        `truth` are the events of each recording; `collar` is in seconds.
        """
        self._recordings, self._times, self._truth, self._collar = recordings, times, truth, collar
        self._grid = list(product(median_filter_ms, min_duration_ms))

    def highest(self, rows: np.ndarray) -> float:
        return 1.0 if any(self._truth[number] for number in np.unique(self._recordings[rows])) else math.nan

    def choose(self, rows: np.ndarray, outputs: np.ndarray) -> tuple[float, tuple[float, float]]:
        scores = {choice: self.score(rows, outputs, choice) for choice in self._grid}
        best = max(scores, key=lambda choice: (scores[choice], choice))  # as the kit sorts
        return scores[best], best

    def score(self, rows: np.ndarray, outputs: np.ndarray, choice: tuple[float, float]) -> float:
        found = detected = there = 0
        bounds = np.flatnonzero(np.diff(self._recordings[rows])) + 1
        for part, logits in zip(np.split(rows, bounds), np.split(outputs, bounds), strict=True):
            onsets = detect_onsets(logits, self._times[part], *choice)
            truth = self._truth[self._recordings[part[0]]]
            for k, starts in enumerate(onsets):
                events = sorted(event.onset for event in truth if event.class_index == k)
                found += count_matches(events, starts / 1000, self._collar)
                detected, there = detected + len(starts), there + len(events)
        return 2 * found / (detected + there) if found else 0.0


def frame_targets(events: Sequence[LabelledEvent], times: np.ndarray, num_classes: int) -> np.ndarray:
    """Return targets (T, K) uint8 at times in ms: 1 from the start of an event to its end, both included, as the kit has it."""
    targets = np.zeros((len(times), num_classes), np.uint8)
    for event in events:
        targets[(times >= 1000 * event.onset) & (times <= 1000 * event.offset), event.class_index] = 1
    return targets


def detect_onsets(logits: np.ndarray, times: np.ndarray, median_ms: float, shortest_ms: float) -> list[np.ndarray]:
    """Return the onsets in ms of the events of each class; logits are (T, K), their times (T,) in ms."""
    active = logits > 0
    step = float(np.mean(np.diff(times))) if len(times) > 1 else math.inf
    if width := round(median_ms / step):
        active = median_filter(active.astype(np.uint8), size=(width, 1)) > 0  # the median's sign is that of the signs' median
    onsets = []
    for column in active.T:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], column, [0]]))).reshape(-1, 2)
        starts, ends = times[edges[:, 0]], times[edges[:, 1] - 1]
        onsets.append(starts[ends - starts >= shortest_ms])
    return onsets


def count_matches(events: Sequence[float], detections: Sequence[float], collar: float) -> int:
    """Return how many of two ascending lists of seconds can be paired within the collar, each once: the most that can."""
    count = position = 0
    for onset in events:
        while position < len(detections) and detections[position] < onset - collar - 1e-9:
            position += 1
        if position < len(detections) and detections[position] <= onset + collar + 1e-9:
            count, position = count + 1, position + 1
    return count
