"""Overlapping windows of one sound, whose spectrograms share frames: each is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datasets.audio import crop_or_pad

if TYPE_CHECKING:
    from helpers.tagger.backends import Backend

WHOLE_WINDOWS = 32  # of a sound that are computed whole rather than load the parts of a model, which takes as long


class OverlappingWindows:
    """Windows -> scores and embeddings, those of the backend for each window alone, up to float32's rounding.

    The front end reflects a window at its ends, so the first and the last few frames are the window's own. The others are those of
    the sound, which the window before has computed if its beginning is a whole number of frames away:

        window before   ^^|-----------------------|^
        this window              ^^|--------------|-------|^
                                 head    shared      tail
    """

    def __init__(self, backend: Backend, window: int, hop: int, shortest: int) -> None:
        """`window`, `hop` and the length `shortest` that windows are padded to with zeros, in samples."""
        self._backend, self._shortest = backend, shortest
        self._seen = 0  # windows
        self._start = 0  # of the window before
        self._inner_end = 0  # of its frames that are those of the sound
        self._spectrogram: np.ndarray | None = None
        self._can_share = False
        if backend.hop_size is not None:
            self._reach = backend.min_samples - 2  # samples on each side that a frame depends on, at most
            self._edge = -(-self._reach // backend.hop_size)  # first frame that does not depend on what is reflected
            shared = self._inner_frames(window) - hop // backend.hop_size - self._edge
            self._can_share = hop % backend.hop_size == 0 and shared > 0

    def __call__(self, windows: Sequence[tuple[int, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(First sample, window) of the next windows -> scores (K,) and embedding (C,) of each."""
        self._seen += len(windows)
        if not self._can_share or (self._seen <= WHOLE_WINDOWS and not self._backend.has_parts):
            return self._backend([self._padded(waveform) for _, waveform in windows])
        pieces, shared = [], []
        for start, waveform in windows:
            shared.append(self._shared(start))
            pieces += self._pieces(waveform, shared[-1])
            self._start, self._inner_end = start, self._inner_frames(len(waveform))
        computed = iter(self._backend.spectrograms(pieces))
        spectrograms = []
        for (_, waveform), frames in zip(windows, shared, strict=True):
            if frames is None:
                spectrogram = next(computed)
            else:
                head, tail = next(computed), next(computed)
                parts = [head[..., : self._edge], self._spectrogram[..., frames], tail[..., self._edge :]]
                spectrogram = np.concatenate(parts, axis=-1)
            self._spectrogram = self._with_silence(spectrogram, len(waveform))
            spectrograms.append(self._spectrogram)
        return self._backend.from_spectrograms(spectrograms)

    def _inner_frames(self, samples: int) -> int:
        """Return the end of the frames of a window that do not depend on what is reflected, or padded, at its end."""
        return max(0, samples - 1 - self._reach) // self._backend.hop_size + 1

    def _shared(self, start: int) -> slice | None:
        """Return the frames of the window before that the window at sample `start` has, from its frame `_edge` on."""
        shift, rest = divmod(start - self._start, self._backend.hop_size)
        first = shift + self._edge
        return slice(first, self._inner_end) if rest == 0 and shift > 0 and first < self._inner_end else None

    def _pieces(self, waveform: np.ndarray, shared: slice | None) -> list[np.ndarray]:
        """Return what the front end computes of a window: all of it, or its beginning and what comes after the shared frames."""
        hop = self._backend.hop_size
        # Of longer padding only the beginning: from there on, frames are those of silence.
        length = min(max(len(waveform), self._shortest), len(waveform) + self._reach + hop + 2)
        padded = crop_or_pad(waveform, length)
        if shared is None:
            return [padded]
        head = max(self._reach + 2, (self._edge - 1) * hop + self._reach + 1)
        return [waveform[:head], padded[(shared.stop - shared.start) * hop :]]

    def _with_silence(self, spectrogram: np.ndarray, samples: int) -> np.ndarray:
        """Repeat the last frame, one of silence, where the padding was not computed to its end."""
        frames = 1 + (max(samples, self._shortest) - 1) // self._backend.hop_size
        missing = max(0, frames - spectrogram.shape[-1])
        return np.pad(spectrogram, ((0, 0), (0, 0), (0, missing)), "edge") if missing else spectrogram

    def _padded(self, waveform: np.ndarray) -> np.ndarray:
        return crop_or_pad(waveform, max(len(waveform), self._shortest))
