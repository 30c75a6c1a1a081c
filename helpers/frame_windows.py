"""Frame-wise models on long sound: overlapping windows whose frames are put together without seams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from models.config import is_number
from models.errors import UserError

FRAME_WINDOW, FRAME_HOP, STREAM_HOP = 10.0, 6.0, 1.0  # seconds; a stream's hop is shorter, and so is its latency
MARGIN = 2.0  # seconds of a window, on each side, whose frames another window has

FrameResults = list[tuple[np.ndarray, np.ndarray]]  # scores (T, K) in [0, 1] and embeddings (T, D) of each waveform, float32


@dataclass(frozen=True)
class FrameWindows:
    """Overlapping windows, in samples, whose frames fit together: all lengths are whole steps.

    Of each window, the frames within `margin` of its ends are dropped, but for the ends of the sound:

        sound    |----------------------------|
        windows  |++++++++++++--|  .          .
                 .      |--+++++++++++--|     .
                 .           .  |--+++++++++++|   moved back
    """

    step: int
    window: int
    hop: int
    margin: int

    @classmethod
    def of_seconds(cls, rate: int, step_seconds: float, window: float, hop: float, margin: float = MARGIN) -> FrameWindows:
        """Round seconds to steps; `UserError` for windows whose margins leave gaps."""
        for name, value in (("window", window), ("hop", hop)):
            if not is_number(value) or value <= 0:
                raise UserError(f"{name} is {value!r:.50} s; it must be a number of seconds above 0")
        step = round(step_seconds * rate)
        steps = [round(value / step_seconds) for value in (window, hop, margin)]
        if not 1 <= steps[1] <= steps[0] - 2 * steps[2]:
            raise UserError(
                f"windows of {window:g} s every {hop:g} s leave gaps: of a window, {margin:g} s on each side are dropped; "
                f"the hop must be {step_seconds:g} s to {max(0.0, window - 2 * margin):g} s"
            )
        return cls(step, *(step * count for count in steps))

    def cut(self, sound: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first sample, window) of a sound (samples,) in memory, as `helpers.tagger.windows` does of blocks."""
        starts = range(0, max(0, len(sound) - self.window) + 1, self.hop)
        if len(sound) >= self.window:
            yield from ((start, sound[start : start + self.window]) for start in starts)
        if len(sound) < self.window or starts[-1] + self.window < len(sound):
            start = max(0, len(sound) - self.window) // self.step * self.step
            yield start, sound[start:]


class SeamlessFrames:
    """Successive windows of one sound -> its frames, each once.

    A frame depends on all of its window, by the means of squeeze-and-excitation, and most on the 0.8 s on either side of it.
    """

    def __init__(self, windows: FrameWindows, compute: Callable[[Sequence[np.ndarray]], FrameResults]) -> None:
        """`compute` turns waveforms (samples,) into scores and embeddings of their frames."""
        self.windows, self._compute = windows, compute
        self.done = 0  # frames
        self._rest: FrameResults = []  # of the last window, its frames that only the end of the sound confirms

    def push(self, windows: Sequence[tuple[int, np.ndarray]]) -> FrameResults:
        """(First sample, window) of the next windows -> scores (n, K) and embeddings (n, D) of frames behind those before."""
        step = self.windows.step
        pieces = []
        for (start, waveform), values in zip(windows, self._compute([waveform for _, waveform in windows]), strict=True):
            count = -(-len(waveform) // step)  # frames of what was padded are not the sound's
            first = self.done - start // step
            last = max(first, count - self.windows.margin // step)
            self._rest = [tuple(value[last:count] for value in values)]
            pieces.append(tuple(value[first:last] for value in values))
            self.done += last - first
        return [piece for piece in pieces if len(piece[0])]

    def finish(self) -> FrameResults:
        """Return the last frames of the sound."""
        return [piece for piece in self._rest if len(piece[0])]

    def all(self, windows: Iterable[tuple[int, np.ndarray]], batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield scores and embeddings of the frames of a whole sound, of which `batch_size` windows are computed at once."""
        windows = iter(windows)
        while batch := list(islice(windows, batch_size)):
            yield from self.push(batch)
        yield from self.finish()
