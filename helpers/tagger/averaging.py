"""Whole recordings: the mean over windows side by side, which are computed in batches across recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from helpers.tagger.reading import UNUSABLE, Recording
from helpers.tagger.results import Embedding, Failure, Tagging
from helpers.tagger.selection import Selection
from helpers.tagger.windows import cut_windows

MAX_LONGER = 0.1  # of a window, that the last one may be longer, so that a clip of little more than a window is computed once


@dataclass(frozen=True)
class Average:
    """A recording, or a part of one, computed."""

    name: str
    start: float  # seconds
    end: float
    scores: np.ndarray  # (K,) float32
    embedding: np.ndarray  # (C,) float32
    warnings: tuple[str, ...]
    channel: int | None

    def tagging(self, select: Selection) -> Tagging:
        return Tagging(self.name, self.start, self.end, select(self.scores), self.warnings, self.channel)

    def embedded(self) -> Embedding:
        return Embedding(self.name, self.start, self.end, self.embedding, self.warnings, self.channel)


def average_windows(
    recordings: Iterable[Recording | Failure],
    compute: Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]],
    window: int | None,
    batch_size: int,
    batch_samples: int,
) -> Iterator[Average | Failure]:
    """Yield the mean scores and embedding of each recording, in their order.

    `compute` turns waveforms (samples,) into scores and embedding of each. `window` is in samples (None: the whole recording in one
    piece); the last one may be longer by `MAX_LONGER`. A batch holds up to `batch_size` windows, and fewer where they reach
    `batch_samples`.
    """
    batch: list[_Window | Failure] = []
    samples = 0
    for item in chain.from_iterable(_cut(recording, window) for recording in recordings):
        batch.append(item)
        samples += len(item.waveform) if isinstance(item, _Window) else 0
        if len(batch) >= batch_size or samples >= batch_samples:
            yield from _compute_batch(batch, compute)
            batch, samples = [], 0
    yield from _compute_batch(batch, compute)


class _Mean:
    """The mean over the windows of a recording, each weighted with the time it adds to those before."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._end = 0  # in samples, of the windows so far
        self._sums: list[np.ndarray | float] = [0.0, 0.0]  # of scores and embeddings, float64

    def add(self, end: int, *values: np.ndarray) -> None:
        """Add scores and embedding of the window that ends at sample `end`."""
        weight, self._end = end - self._end, end
        self._sums = [total + weight * value.astype(np.float64) for total, value in zip(self._sums, values, strict=True)]

    def result(self) -> Average:
        means = [(total / self._end).astype(np.float32) for total in self._sums]
        recording = self._recording
        return Average(recording.name, recording.start, recording.end, *means, tuple(recording.warnings), recording.channel)


@dataclass(frozen=True)
class _Window:
    mean: _Mean  # that it becomes part of
    start: int  # sample
    waveform: np.ndarray
    is_last: bool = False


def _cut(recording: Recording | Failure, window: int | None) -> Iterator[_Window | Failure]:
    """Yield the windows of a recording, and a `Failure` where it turns out to be damaged."""
    if isinstance(recording, Failure):
        yield recording
        return
    mean, last = _Mean(recording), None
    try:
        pieces = [(0, np.concatenate(list(recording.blocks)))] if window is None else cut_windows(recording.blocks, window, window)
        for start, waveform in pieces:
            added = start + len(waveform) - (last.start + len(last.waveform) if last else 0)
            if last and added <= MAX_LONGER * window:
                last = replace(last, waveform=np.concatenate([last.waveform, waveform[-added:]]))
                continue
            if last:
                yield last
            last = _Window(mean, start, waveform)
    except UNUSABLE as error:
        yield Failure(recording.name, error)
    else:
        yield replace(last, is_last=True)


def _compute_batch(
    batch: Sequence[_Window | Failure], compute: Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]
) -> Iterator[Average | Failure]:
    """Compute a batch of windows; yield the recordings that end in it."""
    computed = iter(compute([item.waveform for item in batch if isinstance(item, _Window)]))
    for item in batch:
        if isinstance(item, Failure):
            yield item
            continue
        item.mean.add(item.start + len(item.waveform), *next(computed))
        if item.is_last:
            yield item.mean.result()
