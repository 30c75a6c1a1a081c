"""Sound that is still being recorded: samples in as they come; events out as they begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from datasets.sound import MAX_RATE, Resampler, from_pcm16
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.events import Event, EventTracker
from helpers.tagger.windows import Windows, to_samples
from models.errors import UserError

THRESHOLD = 0.3
READ_SECONDS = 0.1  # of sound that a read waits for at most
MAX_CHANNELS = 64


class StreamTagger:
    """Turn pieces of PCM of any size into events; windows and scores are those of `AudioTagger.tag_windows` of the whole.

    A window is computed when its last sample is there, and stands for one hop around its middle. So the latency is
    (window - hop) / 2 to (window + hop) / 2 (3.75 to 6.25 s at the defaults), and up to `window` seconds for the first window. The
    time to compute a window and the delay of the resampling filter (up to 0.12 s from 8 kHz, 0.02 s from 44.1 kHz) come on top.
    Shorter windows have less latency and lower accuracy.
    """

    def __init__(
        self,
        tagger: AudioTagger,
        sample_rate: int,
        *,
        channels: int = 1,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        threshold: float = THRESHOLD,
        off_threshold: float | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """`sample_rate` in Hz and `channels` of the PCM; window and hop in seconds; thresholds as in `EventTracker`."""
        if not (1 <= sample_rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
            raise UserError(
                f"the stream has {sample_rate} Hz and {channels} channels; allowed: up to {MAX_RATE} Hz and {MAX_CHANNELS} channels"
            )
        self.tagger = tagger
        self.channels = channels
        self._windows = Windows(*to_samples(window, hop, tagger.sample_rate))
        self._resampler = Resampler(sample_rate, tagger.sample_rate)
        self._tracker = EventTracker(tagger.labels, threshold, off_threshold, tagger.classes(labels))
        self._finished = False
        self._rest = b""  # the beginning of a frame that continues in the next piece

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
            raise UserError("the stream has ended; make another StreamTagger")


def read_pieces(file: BinaryIO, sample_rate: int, channels: int) -> Iterator[bytes]:
    """Yield what a pipe holds as soon as it holds something, up to `READ_SECONDS` at a time."""
    size = max(1, round(sample_rate * READ_SECONDS)) * 2 * channels
    read = getattr(file, "read1", file.read)
    while piece := read(size):
        yield piece
