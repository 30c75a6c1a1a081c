"""Sound that is still being recorded: samples in as they come, events out as they begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from datasets.blocks import Resampler, from_pcm16
from helpers.events import Event, EventTracker
from helpers.tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.windows import Windows, to_samples

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
        if rate < 1 or channels < 1:
            raise ValueError(f"rate is {rate} Hz and channels {channels}; both must be 1 or more")
        self.tagger = tagger
        self.channels = channels
        self._windows = Windows(*to_samples(window, hop, tagger.sample_rate))
        self._resampler = Resampler(rate, tagger.sample_rate)
        self._tracker = EventTracker(tagger.labels, threshold, off_threshold, tagger.classes(labels))
        self._rest = b""  # of a frame that is cut between two pieces

    def windows(self, content: bytes) -> Iterator[tuple[float, float, np.ndarray]]:
        """Take 16-bit little-endian samples, channels interleaved; yield start, end and scores (K,) of complete windows."""
        content = self._rest + content
        whole = len(content) - len(content) % (2 * self.channels)
        self._rest = content[whole:]
        yield from self._compute(self._windows.push(self._resampler.push(from_pcm16(content[:whole], self.channels))))

    def last_windows(self) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield what is left at the end of the stream; half a frame there is dropped."""
        yield from self._compute(self._windows.push(self._resampler.finish()))
        yield from self._compute(self._windows.finish())

    def feed(self, content: bytes) -> Iterator[Event]:
        """Take PCM as `windows`; yield events that end and, with `end` None, events that begin."""
        yield from self._track(self.windows(content))

    def finish(self) -> Iterator[Event]:
        """End the stream: yield the events of the last windows, then those that last until the end."""
        yield from self._track(self.last_windows())
        yield from self._tracker.finish()

    def _compute(self, windows: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[float, float, np.ndarray]]:
        for start, end, scores, _ in self.tagger.compute_windows(windows):
            yield start, end, scores

    def _track(self, windows: Iterator[tuple[float, float, np.ndarray]]) -> Iterator[Event]:
        for window in windows:
            for events in self._tracker.push(*window):
                yield from events


def read_pieces(file: BinaryIO, rate: int, channels: int) -> Iterator[bytes]:
    """Yield what a pipe holds as soon as it holds something, up to `READ_SECONDS` at a time."""
    size = max(1, round(rate * READ_SECONDS)) * 2 * channels
    read = getattr(file, "read1", file.read)
    while piece := read(size):
        yield piece
