"""Sound that is still being recorded: samples in as they come; events out as they begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from datasets.channels import mix
from datasets.pcm import HEAD_BYTES, Pcm, check_type, container, to_float
from datasets.sound import MAX_RATE, Resampler
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.events import Event, EventTracker
from helpers.tagger.windows import Windows, to_samples
from models.errors import UserError

THRESHOLD = 0.3
READ_SECONDS = 0.1  # of sound that a read waits for at most
MAX_CHANNELS = 64


class StreamTagger:
    """Turn sound in pieces of any size into events; windows and scores are those of `AudioTagger.tag_windows` of the whole.

    A piece is raw PCM as bytes, or an array: (samples,) of one channel or (samples, channels), integers or floating point as in
    `datasets.sound.open_sound`. `datasets.streams.open_stream` reads streams that have a header.

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
        format: str = "s16le",
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        threshold: float = THRESHOLD,
        off_threshold: float | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """`sample_rate` in Hz, `channels` and `format` (see `datasets.pcm.FORMATS`) of the sound.

        Window and hop in seconds; thresholds as in `EventTracker`.
        """
        if not (1 <= sample_rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
            raise UserError(
                f"the stream has {sample_rate} Hz and {channels} channels; allowed: up to {MAX_RATE} Hz and {MAX_CHANNELS} channels"
            )
        self.tagger = tagger
        self.channels = channels
        self._windows = Windows(*to_samples(window, hop, tagger.sample_rate))
        self._resampler = Resampler(sample_rate, tagger.sample_rate)
        self._tracker = EventTracker(tagger.labels, threshold, off_threshold, tagger.classes(labels))
        self._pcm = Pcm(format, channels)
        self._head = b""  # of PCM
        self._finished = False

    def windows(self, piece: bytes | np.ndarray) -> list[tuple[float, float, np.ndarray]]:
        """Take a piece; return start, end and scores (K,) of complete windows.

        Raises AudioError for NaN and infinite samples and for those far above full scale, UserError for bytes with a header.
        """
        self._refuse_if_finished()
        samples = self._from_array(piece) if isinstance(piece, np.ndarray) else self._from_bytes(bytes(piece))
        return self._compute(self._windows.push(self._resampler.push(mix(samples, "stream"))))

    def last_windows(self) -> list[tuple[float, float, np.ndarray]]:
        """End the stream: return what is left; half a frame at the end is dropped."""
        self._refuse_if_finished()
        self._finished = True
        return self._compute([*self._windows.push(self._resampler.finish()), *self._windows.finish()])

    def feed(self, content: bytes) -> list[Event]:
        """Take a piece as `windows` does; return events that end and, with `end` None, events that begin."""
        return self._track(self.windows(content))

    def finish(self) -> list[Event]:
        """End the stream: return the events of the last windows, then those that last until the end."""
        return [*self._track(self.last_windows()), *self._tracker.finish()]

    def _from_bytes(self, content: bytes) -> np.ndarray:
        if len(self._head) < HEAD_BYTES:
            self._head += content[: HEAD_BYTES - len(self._head)]
            if kind := container(self._head):
                raise UserError(f"the stream begins as {kind}, not as raw PCM; pass what datasets.streams.open_stream reads of it")
        return self._pcm.push(content)

    def _from_array(self, samples: np.ndarray) -> np.ndarray:
        samples = samples[:, None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[1] != self.channels:
            raise UserError(f"a piece of shape {samples.shape}; needed: (samples, {self.channels})")
        check_type(samples)
        return to_float(samples)

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
