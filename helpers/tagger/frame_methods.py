"""What the tagger does in time: the frames of recordings, their embeddings, and the events of recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from helpers.frame_windows import FRAME_HOP, FRAME_WINDOW, FrameResults, FrameWindows, SeamlessFrames
from helpers.tagger.events import THRESHOLD, RecordingEvents
from helpers.tagger.frames import Frames
from helpers.tagger.reading import ReadOptions, Recording, each_recording, report
from helpers.tagger.recording_events import EventFinder
from helpers.tagger.results import Embedding, Failure
from helpers.tagger.windows import cut_windows
from models.errors import UserError

if TYPE_CHECKING:
    from datasets.sound import AudioSource
    from helpers.tagger.reading import Source
    from helpers.tagger.thresholds import Thresholds


class FrameMethods:
    """The part of `AudioTagger` that is for frame-wise models; `events` is for all models."""

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one frame to the next of a frame-wise model; None of a model that tags clips."""
        return self.backend.step_seconds

    def frames(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        window: float = FRAME_WINDOW,
        hop: float = FRAME_HOP,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
    ) -> Frames:
        """Return the scores and embeddings of all frames of a recording, by a frame-wise model.

        They are computed in windows of `window` seconds, one every `hop` seconds, see `helpers.frame_windows`.
        Scores of 447 classes take 160 MB an hour; `iter_frames` keeps none.
        """
        recording = self._open(audio, sample_rate, name, ReadOptions(start, end, channel, strict))
        parts = list(self.iter_frames(recording, window=window, hop=hop, warnings=[]))
        whole = {field: np.concatenate([getattr(part, field) for part in parts]) for field in ("times", "scores", "embeddings")}
        return replace(parts[0], **whole, end=recording.end, warnings=tuple(recording.warnings))

    def iter_frames(
        self,
        audio: AudioSource | Recording,
        sample_rate: float | None = None,
        *,
        window: float = FRAME_WINDOW,
        hop: float = FRAME_HOP,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
        warnings: list[str] | None = None,
    ) -> Iterator[Frames]:
        """Yield what `frames` returns in parts of some seconds, in constant memory; `warnings` are those of `iter_windows`."""
        seamless = self.seamless_frames(window, hop)
        recording = self._open(audio, sample_rate, name, ReadOptions(start, end, channel, strict))

        def parts() -> Iterator[Frames]:
            done, step, cut = 0, self.step_seconds, seamless.windows
            windows = cut_windows(recording.blocks, cut.window, cut.hop, cut.step)
            for scores, embeddings in seamless.all(windows, self.batch_size):
                times = recording.start + step * np.arange(done, done + len(scores))
                done += len(scores)
                about = recording.name, self.labels, times, scores, embeddings, step, float(times[-1]) + step, recording.own_rate
                yield Frames(*about, channel=recording.channel)
            report(recording.warnings, warnings)

        return parts()

    def events(
        self,
        audio: AudioSource | Recording,
        sample_rate: float | None = None,
        *,
        threshold: Thresholds = THRESHOLD,
        off_threshold: float | None = None,
        median_frames: int | None = None,
        labels: Sequence[str] | None = None,
        window: float | None = None,
        hop: float | None = None,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
    ) -> RecordingEvents:
        """Return the events of a recording, in constant memory, by their beginning.

        A frame-wise model gives them to a frame: `threshold` is one for all classes, a dict by label, or the path of a table with
        the columns label and threshold; `median_frames` (9; odd) smooth the scores. Other models give what `Timeline.events` does
        of windows of 4 s, one every second; they have one `threshold`, and an `off_threshold`.
        """
        find = EventFinder(self, threshold, off_threshold, median_frames, self.classes(labels), window, hop)
        return find(self._open(audio, sample_rate, name, ReadOptions(start, end, channel, strict)))

    def embed_frames(
        self,
        sources: Iterable[Source] | Source,
        sample_rate: float | None = None,
        *,
        workers: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
        time_limit: float | None = None,
    ) -> Iterator[Embedding | Failure]:
        """Do what `embed_files` does with a window: one `Embedding` for each frame of a frame-wise model."""
        self.seamless_frames(FRAME_WINDOW, FRAME_HOP)  # a model without frames is one error
        options = ReadOptions(start, end, channel, strict)
        recordings = self.open_files(sources, sample_rate, options, workers=workers, time_limit=time_limit)

        def embeddings(recording: Recording) -> Iterator[Embedding]:
            for frames in self.iter_frames(recording, warnings=[]):
                for time, embedding in zip(frames.times.tolist(), frames.embeddings, strict=True):
                    yield Embedding(recording.name, time, time + frames.step_seconds, embedding, channel=recording.channel)

        return each_recording(recordings, embeddings)

    def seamless_frames(self, window: float, hop: float) -> SeamlessFrames:
        """Return what computes the frames of one sound; window and hop in seconds. `UserError` unless the model is frame-wise."""
        if self.step_seconds is None:
            raise UserError(f"{self._name} tags clips and has no frames; use a frame-wise model, or windows of this one")

        def compute(waveforms: Sequence[np.ndarray]) -> FrameResults:
            return self.backend.frames(self._padded(waveforms))

        return SeamlessFrames(FrameWindows.of_seconds(self.sample_rate, self.step_seconds, window, hop), compute)
