"""Sound that is still being recorded: samples in as they come, events out as they begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from datasets.sound import MAX_CHANNELS, MAX_RATE, Resampler, from_pcm16
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.events import Event, EventTracker
from helpers.tagger.windows import Windows, to_samples
from models.errors import UserError

THRESHOLD = 0.3
READ_SECONDS = 0.1  # how much sound a read waits for at most


class StreamTagger:
    """Turn pieces of PCM of any size into events; windows and scores are those of `AudioTagger.tag_windows` of the whole.

    Latency: a window is computed when its last sample is there, and speaks for one hop around its middle. So what sounds at a time
    is reported between (window - hop) / 2 and (window + hop) / 2 seconds later (3.75 and 6.25 s at the defaults), after the first
    window within `window` seconds, plus the time to compute a window and what the resampling filter holds back (up to 0.12 s from
    8 kHz, 0.02 s from 44.1 kHz). Shorter windows answer sooner and know less.
    """

    def __init__(
        self,
        tagger: AudioTagger,
        rate: int,
        channels: int = 1,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        *,
        threshold: float = THRESHOLD,
        off_threshold: float | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """`rate` in Hz and `channels` of the PCM; window and hop in seconds; thresholds as in `EventTracker`."""
        if not (1 <= rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
            raise UserError(f"rate is {rate} Hz and channels {channels}; allowed: up to {MAX_RATE} Hz and {MAX_CHANNELS} channels")
        self.tagger = tagger
        self.channels = channels
        self._windows = Windows(*to_samples(window, hop, tagger.sample_rate))
        self._resampler = Resampler(rate, tagger.sample_rate)
        self._tracker = EventTracker(tagger.labels, threshold, off_threshold, tagger.classes(labels))
        self._finished = False
        self._rest = b""  # of a frame that is cut between two pieces

    def windows(self, content: bytes) -> list[tuple[float, float, np.ndarray]]:
        """Take 16-bit little-endian samples, channels interleaved; return start, end and scores (K,) of complete windows."""
        self._refuse_if_finished()
        content = self._rest + content
        whole = len(content) - len(content) % (2 * self.channels)
        self._rest = content[whole:]
        return self._compute(self._windows.push(self._resampler.push(from_pcm16(content[:whole], self.channels))))

    def last_windows(self) -> list[tuple[float, float, np.ndarray]]:
        """End the stream: return what is left; half a frame at the end is dropped."""
        self._refuse_if_finished()
        self._finished = True
        return self._compute([*self._windows.push(self._resampler.finish()), *self._windows.finish()])

    def feed(self, content: bytes) -> list[Event]:
        """Take PCM as `windows`; return events that end and, with `end` None, events that begin."""
        return self._track(self.windows(content))

    def finish(self) -> list[Event]:
        """End the stream: return the events of the last windows, then those that last until the end."""
        return [*self._track(self.last_windows()), *self._tracker.finish()]

    def _compute(self, windows: list[tuple[int, np.ndarray]]) -> list[tuple[float, float, np.ndarray]]:
        return [(start, end, scores) for start, end, scores, _ in self.tagger.compute_windows(windows)]

    def _track(self, windows: list[tuple[float, float, np.ndarray]]) -> list[Event]:
        return [event for window in windows for events in self._tracker.push(*window) for event in events]

    def _refuse_if_finished(self) -> None:
        if self._finished:
            raise UserError("the stream was finished; begin another one")


def read_pieces(file: BinaryIO, rate: int, channels: int) -> Iterator[bytes]:
    """Yield what a pipe holds as soon as it holds something, up to `READ_SECONDS` at a time."""
    size = max(1, round(rate * READ_SECONDS)) * 2 * channels
    read = getattr(file, "read1", file.read)
    while piece := read(size):
        yield piece
