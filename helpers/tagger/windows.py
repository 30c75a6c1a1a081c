"""Overlapping windows over sound of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from models.config import is_number
from models.errors import UserError


class Windows:
    """Cut sound that comes in pieces of any size into overlapping windows; holds the last four windows at most.

    Windows begin at 0, hop, 2 hop, ... as long as they fit. If sound is left after the last of them, one more window is moved back
    so that it ends with the sound: nothing is padded. Sound shorter than a window is one window of its own length. A hop larger
    than the window leaves gaps. With `align`, the last window begins at a multiple of it, so that it may be longer by less than it.

        sound    |-----------------------|
        windows  |--------|  .     .     .
                 .   |--------|    .     .
                 .      .  |--------|    .
                 .      .     . |--------|   moved back
    """

    def __init__(self, window: int, hop: int, align: int = 1) -> None:
        """All in samples, 1 or more."""
        self.window, self.hop, self.align = window, hop, align
        self._buffer = np.empty(0, np.float32)
        self._filled = 0  # samples in the buffer
        self._end = 0  # samples seen
        self._next = 0  # start of the next window
        self._covered = 0  # end of the last window

    def push(self, samples: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Return (first sample, window) of the windows that (n,) more samples complete; later calls do not change them."""
        complete = []
        for start in range(0, len(samples), self.window):
            piece = samples[start : start + self.window]
            self._append(piece)
            while self._next + self.window <= self._end:
                complete.append((self._next, self._cut(self._next, self.window)))
                self._covered = self._next + self.window
                self._next += self.hop
        return complete

    def finish(self) -> list[tuple[int, np.ndarray]]:
        """Return the window that ends with the sound, none if the last one did."""
        if self._covered == self._end:
            return []
        start = max(0, self._end - self.window) // self.align * self.align
        self._covered = self._end
        return [(start, self._cut(start, self._end - start))]

    def _append(self, piece: np.ndarray) -> None:
        if self._filled + len(piece) > len(self._buffer):  # later windows need no more than the last one and `align`
            kept = self._buffer[max(0, self._filled - self.window - self.align + 1) : self._filled]
            needed = len(kept) + len(piece)
            # a new buffer, because windows are views of the old one; small where a huge window meets a short sound
            buffer = np.empty(min(max(4 * self.window, needed), 4 * needed), np.float32)
            buffer[: len(kept)] = kept
            self._buffer, self._filled = buffer, len(kept)
        self._buffer[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)
        self._end += len(piece)

    def _cut(self, start: int, length: int) -> np.ndarray:
        offset = start - (self._end - self._filled)
        return self._buffer[offset : offset + length]


def cut_windows(blocks: Iterable[np.ndarray], window: int, hop: int, align: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first sample, window) over the blocks of a whole recording, see `Windows`."""
    windows = Windows(window, hop, align)
    for block in blocks:
        yield from windows.push(block)
    yield from windows.finish()


def to_samples(window: float, hop: float, rate: int) -> tuple[int, int]:
    """Seconds of window and hop -> samples; `UserError` unless both are at least one sample."""
    for name, value in (("window", window), ("hop", hop)):
        if not is_number(value) or round(value * rate) < 1:
            raise UserError(f"{name} is {value!r:.50} s; it must be a number of seconds, at least one sample")
    return round(window * rate), round(hop * rate)
