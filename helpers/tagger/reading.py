"""Reading recordings: what users pass, decoded by threads while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from datasets.audio import AudioError
from datasets.sound import Sound, is_tensor, open_sound, resampled
from helpers.tagger.results import Failure
from models.errors import UserError

if TYPE_CHECKING:
    from datasets.sound import AudioSource

    Source: TypeAlias = AudioSource | tuple[np.ndarray, float]  # a pair is samples and their rate

UNUSABLE = (AudioError, UserError, OSError)  # what makes a recording a `Failure`
BLOCKS_AHEAD = 4
SECONDS_AHEAD = 60.0

T = TypeVar("T")


class Recording:
    """A recording at the network's rate, read block by block, once."""

    def __init__(self, sound: Sound, rate: int) -> None:
        self.name = sound.name
        self._rate = sound.rate
        self._samples = 0  # read so far, at the recording's own rate
        self.blocks: Iterator[np.ndarray] = resampled(self._counted(sound.blocks), sound.rate, rate, sound.name)

    def read_in_thread(self) -> None:
        """Let a thread decode a few blocks in advance."""
        self.blocks = in_thread(self.blocks, BLOCKS_AHEAD)

    @property
    def seconds(self) -> float:
        """Length, known when all blocks are read."""
        return self._samples / self._rate

    def _counted(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._samples += len(block)
            yield block


def read_ahead(
    sources: Iterable[tuple[AudioSource, float | None]], rate: int, workers: int, depth: int
) -> Iterator[Recording | Failure]:
    """Yield recordings in order; `workers` threads decode the first minute of each, `depth` recordings in advance."""

    def begin(pair: tuple[AudioSource, float | None]) -> Recording | Failure:
        source, source_rate = pair
        try:
            recording = Recording(open_sound(source, source_rate), rate)
            head, samples = [], 0
            for block in recording.blocks:
                head.append(block)
                samples += len(block)
                if samples > SECONDS_AHEAD * rate:
                    recording.read_in_thread()
                    break
            recording.blocks = chain(head, recording.blocks)
            return recording
        except UNUSABLE as error:
            return Failure(describe(source), error)

    return _ahead(begin, sources, workers, depth)


def with_rates(sources: Iterable[Source] | Source, sample_rate: float | None) -> Iterator[tuple[AudioSource, float | None]]:
    """Return (recording, sample rate) of one recording or of several; `sample_rate` is that of arrays without one of their own."""
    is_file = isinstance(sources, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(sources, "read")
    if _is_samples(sources) and sources.ndim > 1:
        raise UserError(f"sources have shape {tuple(sources.shape)}; pass [samples] for one recording, list(batch) for several")
    listed = [sources] if is_file or _is_pair(sources) or _is_samples(sources) else sources
    return (source if _is_pair(source) else (source, sample_rate if _is_samples(source) else None) for source in listed)


def describe(source: Any) -> str:
    """Return what results call a recording that could not be opened."""
    if isinstance(source, (str, Path)):
        return str(source)
    return "array" if _is_samples(source) else f"a {type(source).__name__}"


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and _is_samples(source[0]) and np.isscalar(source[1])


def _is_samples(source: Any) -> bool:
    return isinstance(source, np.ndarray) or is_tensor(source)


def in_thread(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield items that a thread takes from an iterable, up to `depth` in advance; errors arrive in their place."""
    source, end = iter(items), object()
    return takewhile(lambda item: item is not end, _ahead(lambda _: next(source, end), count(), 1, depth))


def _ahead(function: Callable[[Any], T], items: Iterable[Any], workers: int, depth: int) -> Iterator[T]:
    """Yield function(item) in order, computed by threads, up to `depth` in advance."""
    source = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        pending: deque[Future[T]] = deque(pool.submit(function, item) for item in islice(source, depth))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
