"""Sound that is still being recorded: samples in as they come; events out as they begin and end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import numpy as np

from datasets.channels import MAX_STRETCH, STRETCH_SECONDS, check_channel, checked, loudest_if_lost, mix
from datasets.sound import MAX_RATE, Resampler
from datasets.streams.marks import HEAD_BYTES, container
from datasets.streams.pcm import Pcm, check_type, to_float
from helpers.frame_windows import FRAME_WINDOW, STREAM_HOP, FrameResults
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.event_decoding import EventDecoder
from helpers.tagger.events import THRESHOLD, Event
from helpers.tagger.recording_events import event_tracker
from helpers.tagger.thresholds import Thresholds
from helpers.tagger.windows import Windows, to_samples
from models.errors import UserError

MAX_CHANNELS = 64


class StreamTagger:
    """Turn sound in pieces of any size into events; scores are those of the whole, by `AudioTagger.tag_windows` or `frames`.

    A piece is raw PCM as bytes, or an array: (samples,) of one channel or (samples, channels), integers or floating point as in
    `datasets.sound.open_sound`. `datasets.streams.pipes.open_stream` reads streams that have a header.

    A window is computed when its last sample is there, and stands for one hop around its middle. So the latency is
    (window - hop) / 2 to (window + hop) / 2 (3.75 to 6.25 s at the defaults), and up to `window` seconds for the first window. The
    time to compute a window and the delay of the resampling filter (up to 0.12 s from 8 kHz, 0.02 s from 44.1 kHz) come on top.
    Shorter windows have less latency and lower accuracy.

    Of a frame-wise model, the last second of a window is not used and that before is shared with the next window, see
    `helpers.frame_windows`; the median filter waits for half of its frames. So the latency is 2.2 to 3.2 s for a hop of 1 s and
    9 frames, see `latency`.
    """

    def __init__(
        self,
        tagger: AudioTagger,
        sample_rate: int,
        *,
        channels: int = 1,
        format: str = "s16le",
        window: float | None = None,
        hop: float | None = None,
        threshold: Thresholds = THRESHOLD,
        off_threshold: float | None = None,
        median_frames: int | None = None,
        labels: Sequence[str] | None = None,
        channel: int | None = None,
    ) -> None:
        """`sample_rate` in Hz, `channels` and `format` (see `datasets.streams.pcm.FORMATS`) of the sound.

        `channel`, from 1, is taken alone instead of a mix of all. Window and hop in seconds (None: 10 every 2.5, or every second
        for a frame-wise model); thresholds and median filter as in `recording_events.event_tracker`.
        """
        if not (1 <= sample_rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
            raise UserError(
                f"the stream has {sample_rate} Hz and {channels} channels; allowed: up to {MAX_RATE} Hz and {MAX_CHANNELS} channels"
            )
        self.tagger = tagger
        self.channels = channels
        self._tracker = event_tracker(tagger, threshold, off_threshold, median_frames, tagger.classes(labels))
        if tagger.step_seconds is None:
            self.window, self.hop = _chosen(window, WINDOW_SECONDS), _chosen(hop, HOP_SECONDS)
            samples = to_samples(self.window, self.hop, tagger.sample_rate)
            self._windows, self._overlapping = Windows(*samples), tagger.overlapping(*samples)
            self.latency = max(0.0, self.window - self.hop) / 2, (self.window + self.hop) / 2
        else:
            self.window, self.hop = _chosen(window, FRAME_WINDOW), _chosen(hop, STREAM_HOP)
            self._seamless = tagger.seamless_frames(self.window, self.hop)
            cut = self._seamless.windows
            self._windows = Windows(cut.window, cut.hop, cut.step)
            wait = (cut.margin + cut.fade) / tagger.sample_rate + (self._tracker.median_frames // 2 + 1) * tagger.step_seconds
            self.latency = wait, wait + self.hop
        self._resampler = Resampler(sample_rate, tagger.sample_rate)
        self._pcm = Pcm(format, channels)
        self._mix = _LiveMix(sample_rate, channels, channel, self.window)
        self._head = b""  # of PCM
        self._samples = self._frames = 0  # so far, at the model's rate
        self._finished = False

    def windows(self, piece: bytes | np.ndarray) -> list[tuple[float, float, np.ndarray]]:
        """Take a piece; return start, end and scores (K,) of complete windows, of a frame-wise model those (n, K) of new frames.

        Raises AudioError for NaN and infinite samples and for those far above full scale, UserError for bytes with a header.
        """
        self._refuse_if_finished()
        samples = self._from_array(piece) if isinstance(piece, np.ndarray) else self._from_bytes(bytes(piece))
        return self._compute(self._pushed(self._resampler.push(self._mix(samples))))

    def last_windows(self) -> list[tuple[float, float, np.ndarray]]:
        """End the stream: return what is left; half a frame at the end is dropped."""
        self._refuse_if_finished()
        self._finished = True
        rest = np.concatenate([self._resampler.push(self._mix.finish()), self._resampler.finish()])
        last = self._compute([*self._pushed(rest), *self._windows.finish()])
        return last if self.tagger.step_seconds is None else last + self._timed(self._seamless.finish())

    def feed(self, piece: bytes | np.ndarray) -> list[Event]:
        """Take a piece as `windows` does; return events that end and, with `end` None, events that begin."""
        return [event for window in self.windows(piece) for event in self.track(*window)]

    def finish(self) -> list[Event]:
        """End the stream: return the events of the last windows, then those that last until the end."""
        return [*(event for window in self.last_windows() for event in self.track(*window)), *self.last_events()]

    def track(self, start: float, end: float, scores: np.ndarray) -> list[Event]:
        """Take one of the windows, in their order; return its events as `feed` does."""
        if isinstance(self._tracker, EventDecoder):
            return self._tracker.push(scores)
        return [event for events in self._tracker.push(start, end, scores) for event in events]

    def last_events(self) -> list[Event]:
        """Return the events that last until the end of the last window."""
        if isinstance(self._tracker, EventDecoder):
            return self._tracker.finish(self._samples / self.tagger.sample_rate)
        return self._tracker.finish()

    def _pushed(self, samples: np.ndarray) -> list[tuple[int, np.ndarray]]:
        self._samples += len(samples)
        return self._windows.push(samples)

    def _from_bytes(self, content: bytes) -> np.ndarray:
        if len(self._head) < HEAD_BYTES:
            self._head += content[: HEAD_BYTES - len(self._head)]
            if kind := container(self._head):
                raise UserError(
                    f"the stream begins as {kind}, not as raw PCM; pass what open_stream (datasets.streams.pipes) reads"
                )
        return self._pcm.push(content)

    def _from_array(self, samples: np.ndarray) -> np.ndarray:
        samples = samples[:, None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[1] != self.channels:
            raise UserError(f"a piece of shape {samples.shape}; needed: (samples, {self.channels})")
        check_type(samples)
        return to_float(samples)

    def _compute(self, windows: list[tuple[int, np.ndarray]]) -> list[tuple[float, float, np.ndarray]]:
        if self.tagger.step_seconds is not None:
            return self._timed(self._seamless.push(windows)) if windows else []
        return [(start, end, scores) for start, end, scores, _ in self.tagger.compute_windows(windows, self._overlapping)]

    def _timed(self, frames: FrameResults) -> list[tuple[float, float, np.ndarray]]:
        """Return start, end and scores of pieces of successive frames."""
        timed = []
        for scores, _ in frames:
            first, self._frames = self._frames, self._frames + len(scores)
            timed.append((first * self.tagger.step_seconds, self._frames * self.tagger.step_seconds, scores))
        return timed

    def _refuse_if_finished(self) -> None:
        if self._finished:
            raise UserError("the stream has ended; make another StreamTagger")


def _chosen(seconds: float | None, default: float) -> float:
    return default if seconds is None else seconds


class _LiveMix:
    """Mix the channels of sound that cannot wait: `datasets.channels`, but whether they cancel is judged by the last 10 s.

    This is judged once a second, for what follows. The first second, or less of it that makes a window, is held back for it.
    """

    def __init__(self, rate: int, channels: int, channel: int | None, window: float) -> None:
        if channel is not None:
            check_channel(channel, channels, "the stream")
        self._channel = channel  # that is taken alone
        self._may_cancel = channel is None and channels > 1
        self._length = max(1, min(rate, MAX_STRETCH // (STRETCH_SECONDS * channels)))
        self._missing = max(1, min(self._length, int(window * rate)))
        self._second: list[np.ndarray] = []  # not judged yet
        self._last: deque[np.ndarray] = deque(maxlen=STRETCH_SECONDS)
        self._rate, self._done = rate, 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(samples, channels) floating point -> (samples,) float32."""
        if not self._may_cancel:
            return mix(samples, "the stream", self._channel)
        mixed = [np.zeros(0, np.float32)]
        while len(samples):
            part, samples = samples[: self._missing], samples[self._missing :]
            self._second.append(checked(part, "the stream").copy())  # the caller may use its array again
            self._missing -= len(part)
            if self._last:
                mixed.append(mix(part, "the stream", self._channel))
            if self._missing == 0:
                mixed.append(self._judged())
        return np.concatenate(mixed)

    def finish(self) -> np.ndarray:
        """Return what is held back."""
        return np.zeros(0, np.float32) if self._last or not self._second else self._judged()

    def _judged(self) -> np.ndarray:
        """Judge one more second; return it mixed if it was held back."""
        second, was_held = np.concatenate(self._second), not self._last
        self._last.append(second)
        self._second, self._missing = [], self._length
        self._done += len(second)
        recent = np.concatenate(self._last)
        lost = loudest_if_lost(recent, mix(recent, "the stream"))
        if lost is not None and self._channel is None:
            since = 0.0 if was_held else self._done / self._rate
            logging.warning(
                f"the channels of the stream cancel when mixed; from {since:g} s on channel {lost + 1} is taken alone; "
                f"to take it all the time, give channel {lost + 1}"
            )
        self._channel = None if lost is None else lost + 1
        return mix(second, "the stream", self._channel) if was_held else np.zeros(0, np.float32)
