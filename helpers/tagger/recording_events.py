"""The events of a recording: from frames where the model has them, from overlapping windows where it tags clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.frame_windows import FRAME_HOP, FRAME_WINDOW
from helpers.median_filter import MEDIAN_FRAMES
from helpers.tagger.event_decoding import EventDecoder
from helpers.tagger.events import THRESHOLD, Event, EventTracker, RecordingEvents, sorted_events
from helpers.tagger.thresholds import class_thresholds
from helpers.tagger.windows import to_samples
from models.config import is_number
from models.errors import UserError

if TYPE_CHECKING:
    from helpers.tagger.audio_tagger import AudioTagger
    from helpers.tagger.reading import Recording
    from helpers.tagger.thresholds import Thresholds

EVENT_WINDOW, EVENT_HOP = 4.0, 1.0  # seconds, of models that tag clips


def event_tracker(
    tagger: AudioTagger,
    threshold: Thresholds = THRESHOLD,
    off_threshold: float | None = None,
    median_frames: int | None = None,
    classes: tuple[int, ...] | None = None,
    source: str | None = None,
    start: float = 0.0,
) -> EventTracker | EventDecoder:
    """Return what makes events of a model's scores: those of frames, of which the first is at `start` seconds, or of windows.

    `threshold` is that of `thresholds.class_thresholds`. Models that tag clips have one for all classes and `off_threshold`;
    frame-wise models have `median_frames`. None is the default.
    """
    if tagger.step_seconds is None:
        if not is_number(threshold):
            raise UserError(f"thresholds of classes, {threshold!r:.100}, need a frame-wise model; give one number")
        if median_frames is not None:
            raise UserError("a median filter needs a frame-wise model; leave it out")
        return EventTracker(tagger.labels, threshold, off_threshold, classes, source)
    if off_threshold is not None:
        raise UserError("the events of a frame-wise model end at the threshold at which they begin; leave the off_threshold out")
    thresholds = class_thresholds(threshold, tagger.labels)
    median_frames = MEDIAN_FRAMES if median_frames is None else median_frames
    return EventDecoder(tagger.labels, tagger.step_seconds, thresholds, median_frames, classes=classes, start=start, source=source)


@dataclass(frozen=True)
class EventFinder:
    """How events are found, the same for all recordings of a run; see `event_tracker`. None is what fits the model."""

    tagger: AudioTagger
    threshold: Thresholds = THRESHOLD
    off_threshold: float | None = None
    median_frames: int | None = None
    classes: tuple[int, ...] | None = None
    window: float | None = None  # seconds
    hop: float | None = None

    def __post_init__(self) -> None:
        """What is wrong for every recording is one error."""
        if self.tagger.step_seconds is not None:
            object.__setattr__(self, "threshold", class_thresholds(self.threshold, self.tagger.labels))  # a table is read once
        self._tracker(None, 0.0)
        window, hop = self.windows
        if self.tagger.step_seconds is None:
            to_samples(window, hop, self.tagger.sample_rate)
        else:
            self.tagger.seamless_frames(window, hop)

    @property
    def windows(self) -> tuple[float, float]:
        """Window and hop in seconds."""
        defaults = (EVENT_WINDOW, EVENT_HOP) if self.tagger.step_seconds is None else (FRAME_WINDOW, FRAME_HOP)
        return tuple(default if given is None else given for given, default in zip((self.window, self.hop), defaults, strict=True))

    def __call__(self, recording: Recording) -> RecordingEvents:
        """Read a recording to its end."""
        by_frames = self.tagger.step_seconds is not None
        events = sorted_events(self._by_frames(recording) if by_frames else self._by_windows(recording))
        start, end, rate = recording.start, recording.end, recording.own_rate
        return RecordingEvents(recording.name, start, end, tuple(events), rate, tuple(recording.warnings), recording.channel)

    def _by_frames(self, recording: Recording) -> Iterator[Event]:
        decoder = self._tracker(recording.name, recording.start)
        for frames in self.tagger.iter_frames(recording, window=self.windows[0], hop=self.windows[1], warnings=[]):
            yield from (event for event in decoder.push(frames.scores) if event.end is not None)
        yield from decoder.finish(recording.end)

    def _by_windows(self, recording: Recording) -> Iterator[Event]:
        tracker = self._tracker(recording.name, recording.start)
        for start, end, scores in self.tagger.iter_windows(recording, window=self.windows[0], hop=self.windows[1], warnings=[]):
            yield from tracker.push(start, end, scores)[0]
        yield from tracker.finish()

    def _tracker(self, source: str | None, start: float) -> EventTracker | EventDecoder:
        return event_tracker(self.tagger, self.threshold, self.off_threshold, self.median_frames, self.classes, source, start)
