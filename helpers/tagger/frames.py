"""The frames of a recording, by a frame-wise model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.median_filter import MEDIAN_FRAMES
from helpers.tagger.event_decoding import decode
from helpers.tagger.events import THRESHOLD, RecordingEvents
from helpers.tagger.selection import find_classes
from helpers.tagger.thresholds import Thresholds, class_thresholds


@dataclass(frozen=True, eq=False, repr=False)
class Frames:
    """The frames of a recording, or of a part of one, by a frame-wise model."""

    source: str
    labels: tuple[str, ...]
    times: np.ndarray  # (T,) seconds, the beginning of each frame
    scores: np.ndarray  # (T, K) float32 in [0, 1]
    embeddings: np.ndarray  # (T, D) float32
    step_seconds: float  # from one frame to the next
    end: float  # seconds, of what was read
    sample_rate: int  # of the recording, Hz
    warnings: tuple[str, ...] = ()  # what was wrong with the recording
    channel: int | None = None  # that was taken alone, from 1

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        times = f"{self.times[0]:.2f} to {self.end:.2f} s"
        return f"Frames({self.source!r}, {times}, {len(self)} frames of {self.step_seconds:g} s, {len(self.labels)} classes)"

    def events(
        self, threshold: Thresholds = THRESHOLD, median_frames: int = MEDIAN_FRAMES, labels: Sequence[str] | None = None
    ) -> RecordingEvents:
        """Return what `AudioTagger.events` does, without computing the frames again."""
        start, classes = float(self.times[0]), find_classes(labels, self.labels)
        thresholds = class_thresholds(threshold, self.labels)
        options = {"start": start, "labels": self.labels, "classes": classes, "source": self.source}
        events = decode(self.scores, self.step_seconds, thresholds, median_frames, self.end - start, **options)
        return RecordingEvents(self.source, start, self.end, tuple(events), self.sample_rate, self.warnings, self.channel)
