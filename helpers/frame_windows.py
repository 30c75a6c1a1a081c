"""Frame-wise models on long sound: overlapping windows whose frames are put together without seams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from models.config import is_number
from models.errors import UserError

FRAME_WINDOW, FRAME_HOP, STREAM_HOP = 10.0, 6.0, 1.0  # seconds; a stream's hop is shorter, and so is its latency
MARGIN = 1.0  # seconds of a window, on each side, whose frames are dropped; convolutions reach 0.8 s
FADE = 2.0  # seconds in which one window takes over from another, at most the hop

FrameResults = list[tuple[np.ndarray, np.ndarray]]  # scores (T, K) in [0, 1] and embeddings (T, D) of each waveform, float32


@dataclass(frozen=True)
class FrameWindows:
    """Overlapping windows, in samples, whose frames fit together: all lengths are whole steps.

    Of each window, the frames within `margin` of its ends are dropped, but for the ends of the sound. In `fade` in front of what is
    dropped at its end, the next window takes over, frame by frame:

        sound    |------------------------------|
        windows  |+++++++++>>>>--|  .           .
                 .    |--<<<<++++++>>>>--|      .
                 .           . |--<<<<++++++++++|   moved back
    """

    step: int
    window: int
    hop: int
    margin: int
    fade: int

    @classmethod
    def of_seconds(cls, rate: int, step_seconds: float, window: float, hop: float, margin: float = MARGIN) -> FrameWindows:
        """Round seconds to steps; `UserError` for windows whose margins leave gaps."""
        for name, value in (("window", window), ("hop", hop)):
            if not is_number(value) or value <= 0:
                raise UserError(f"{name} is {value!r:.50} s; it must be a number of seconds above 0")
        step = round(step_seconds * rate)
        steps = [round(value / step_seconds) for value in (window, hop, margin, min(hop, FADE))]
        if not 1 <= steps[1] <= steps[0] - 2 * steps[2] - steps[3]:
            kept = max(0.0, window - 2 * margin)
            highest = max(kept - FADE, min(FADE, kept / 2))
            raise UserError(
                f"windows of {window:g} s every {hop:g} s overlap too little: {margin:g} s on each side are dropped, and "
                f"{FADE:g} s are shared; the hop must be {step_seconds:g} s to {highest:g} s"
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
        self._rest: FrameResults = []  # the last window's scores and embeddings of the frames behind these
        fade = windows.fade // windows.step
        self._share = (np.arange(1, fade + 1, dtype=np.float32) / (fade + 1))[:, None]  # of the later one of two windows

    def push(self, windows: Sequence[tuple[int, np.ndarray]]) -> FrameResults:
        """(First sample, window) of the next windows -> scores (n, K) and embeddings (n, D) of frames behind those before."""
        step = self.windows.step
        pieces = []
        for (start, waveform), values in zip(windows, self._compute([waveform for _, waveform in windows]), strict=True):
            count = -(-len(waveform) // step)  # frames of what was padded are not the sound's
            first = self.done - start // step
            new = [np.array(value[first:count]) for value in values]  # copies, which are changed
            for before, value in zip(self._rest[0] if self._rest else (), new, strict=False):
                shared = before[: len(self._share)]
                value[: len(shared)] = shared + self._share[: len(shared)] * (value[: len(shared)] - shared)
            known = max(0, len(new[0]) - (self.windows.margin + self.windows.fade) // step)
            self._rest = [tuple(value[known:] for value in new)]
            pieces.append(tuple(value[:known] for value in new))
            self.done += known
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
