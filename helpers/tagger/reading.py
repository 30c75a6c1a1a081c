"""Reading recordings: what users pass, decoded by threads while the network computes."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, count, islice, takewhile
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from datasets.audio import AudioError
from datasets.channels import check_channel
from datasets.decoding.content import opened, source_name
from datasets.decoding.isolated import IS_AVAILABLE, Decoders, IsolatedSound
from datasets.sound import MAX_CHANNELS, Sound, check_part, is_tensor, open_sound, resampled
from helpers.tagger.results import Failure
from models.errors import UserError

if TYPE_CHECKING:
    from datasets.sound import AudioSource
    from helpers.tagger.events import RecordingEvents
    from helpers.tagger.results import Embedding, Tagging

    Source: TypeAlias = AudioSource | tuple[np.ndarray | bytes, float]  # a pair is samples and their rate

UNUSABLE = (AudioError, UserError, OSError)  # what makes a recording a `Failure`
BLOCKS_AHEAD = 4
SECONDS_AHEAD = 60.0

logger = logging.getLogger(__name__)

T = TypeVar("T")
Result = TypeVar("Result", bound="Tagging | Embedding | RecordingEvents")


@dataclass(frozen=True)
class ReadOptions:
    """Which part of recordings is read and how, see `datasets.sound.open_sound`."""

    start: float = 0.0
    end: float | None = None
    channel: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """What is wrong for every recording is one error."""
        check_part(self.start, self.end)
        if self.channel is not None:
            check_channel(self.channel)


class Recording:
    """A recording at the network's rate, read block by block, once."""

    def __init__(self, sound: Sound | IsolatedSound, rate: int, options: ReadOptions) -> None:
        self.name = sound.name
        self.start = options.start  # seconds
        self.channel = options.channel
        self.channels = sound.channels
        self.warnings = sound.warnings  # complete when all blocks are read
        self.rate = rate  # Hz, of the blocks
        self.own_rate = sound.rate  # Hz, of the recording
        self._sound = sound
        self._samples = 0  # read so far, at the recording's own rate
        self.is_read = False  # to its end
        if isinstance(sound, IsolatedSound):
            self.blocks: Iterator[np.ndarray] = sound.blocks
        else:
            self.blocks = resampled(self._counted(sound.blocks), sound.rate, rate, sound.name)

    def read_in_thread(self) -> None:
        """Let a thread decode a few blocks in advance."""
        self.blocks = in_thread(self.blocks, BLOCKS_AHEAD)

    @property
    def end(self) -> float:
        """Seconds, known when all blocks are read."""
        samples = self._sound.samples if isinstance(self._sound, IsolatedSound) else self._samples
        return self.start + samples / self.own_rate

    def _counted(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._samples += len(block)
            yield block


def open_recording(
    source: AudioSource,
    sample_rate: float | None,
    rate: int,
    options: ReadOptions,
    name: str | None = None,
    decoders: Decoders | None = None,
) -> Recording:
    """Open a recording to be read at `rate` Hz; errors are those of `open_sound`. `decoders` read what has a path, and bytes."""
    if decoders is not None and sample_rate is None and (isinstance(source, bytes) or _can_be_opened_elsewhere(source)):
        return Recording(decoders.open(source, rate, name=name, **vars(options)), rate, options)
    return Recording(open_sound(source, sample_rate, name=name, **vars(options)), rate, options)


def _can_be_opened_elsewhere(source: AudioSource) -> bool:
    """Whether another process can open it: a file or a named pipe, but not a descriptor of this process, as /dev/stdin is."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    path = Path(source)
    return path.is_file() or (path.is_fifo() and not os.path.realpath(path).startswith(("/proc/", "/dev/")))


def read_ahead(
    sources: Iterable[tuple[AudioSource, float | None]],
    rate: int,
    options: ReadOptions,
    workers: int,
    depth: int,
    per_channel: bool = False,
    time_limit: float | None = None,
) -> Iterator[Recording | Failure]:
    """Yield recordings in order; `workers` threads decode the first minute of each, `depth` recordings in advance.

    `per_channel` makes one of each channel. With a `time_limit`, the threads let processes decode files, see
    `datasets.decoding.isolated`. Of recordings that take longer than a minute, each of which keeps its file open and its process,
    one more than `workers` is begun in advance, and one channel.
    """
    unread: list[Recording] = []  # that take longer

    def open_one(source: AudioSource, source_rate: float | None, options: ReadOptions, name: str | None = None) -> Recording:
        recording = _begun(open_recording(source, source_rate, rate, options, name, decoders))
        if not recording.is_read:
            unread.append(recording)
        return recording

    def begin(pair: tuple[AudioSource, float | None]) -> Iterable[Recording | Failure]:
        source, source_rate = pair
        try:
            if not per_channel:
                return [open_one(source, source_rate, options)]
            source, name = to_read_again(source)
            first = open_one(source, source_rate, replace(options, channel=1), name)
        except UNUSABLE as error:
            return [Failure(describe(source), error)]

        def others() -> Iterator[Recording | Failure]:
            for channel in range(2, first.channels + 1):
                try:
                    yield open_one(source, source_rate, replace(options, channel=channel), name)
                except UNUSABLE as error:
                    yield Failure(first.name, error)

        return [first, *others()] if first.is_read else chain([first], others())

    def current_depth() -> int:
        for recording in [recording for recording in unread if recording.is_read]:
            unread.remove(recording)
        return workers + 1 if unread else depth

    with Decoders(time_limit, keep=workers) if time_limit is not None and IS_AVAILABLE else nullcontext() as decoders:
        yield from chain.from_iterable(_ahead(begin, sources, workers, current_depth))


def each_recording(
    recordings: Iterable[Recording | Failure], compute: Callable[[Recording], Iterable[Result]]
) -> Iterator[Result | Failure]:
    """Yield the results of each recording in turn; the last one of a recording gets its warnings.

    If a recording turns out to be damaged, a `Failure` follows the results before the damage.
    """
    for recording in recordings:
        if isinstance(recording, Failure):
            yield recording
            continue
        last = None  # waits until all warnings are known
        try:
            for result in compute(recording):
                if last is not None:
                    yield last
                last = result
            yield replace(last, warnings=tuple(recording.warnings))
        except UNUSABLE as error:
            if last is not None:
                yield last
            yield Failure(recording.name, error)


def _begun(recording: Recording) -> Recording:
    """Decode the first minute of a recording."""
    head, samples = [], 0
    for block in recording.blocks:
        head.append(block)
        samples += len(block)
        if samples > SECONDS_AHEAD * recording.rate:
            recording.read_in_thread()
            break
    else:
        recording.is_read = True
    recording.blocks = _noting_the_end(recording, chain(head, recording.blocks))
    return recording


def _noting_the_end(recording: Recording, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    try:
        yield from blocks
    finally:
        recording.is_read = True


def to_read_again(source: AudioSource) -> tuple[AudioSource, str | None]:
    """Return what can be read several times: the content of pipes and file objects, with their name; all else as it is."""
    is_pipe = isinstance(source, (str, os.PathLike)) and Path(source).is_fifo()
    if not is_pipe and not hasattr(source, "read"):
        return source, None
    name = source_name(source)
    with opened(source, name) as content:
        return content.view().readall(), name


def report(found: Iterable[str], warnings: list[str] | None = None) -> None:
    """Append what is wrong with a recording to a list, or log it."""
    if warnings is not None:
        warnings += found
        return
    for text in found:
        logger.warning("%s", text)


def with_rates(sources: Iterable[Source] | Source, sample_rate: float | None) -> Iterator[tuple[AudioSource, float | None]]:
    """Return (recording, sample rate) of one recording or of several; `sample_rate` is that of arrays without one of their own.

    An array of (recordings, samples) or (recordings, channels, samples) is several.
    """
    is_file = isinstance(sources, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(sources, "read")
    if _is_samples(sources) and sources.ndim == 2 and sources.shape[1] <= MAX_CHANNELS < sources.shape[0]:
        raise UserError(
            f"sources have shape {tuple(sources.shape)}; several recordings are (recordings, samples); pass [samples] for one"
        )
    is_one = is_file or _is_pair(sources) or (_is_samples(sources) and sources.ndim < 2)
    listed = [sources] if is_one else sources
    return (source if _is_pair(source) else (source, sample_rate if _is_samples(source) else None) for source in listed)


def describe(source: Any) -> str:
    """Return what results call a recording that could not be opened."""
    if isinstance(source, (str, Path)):
        return str(source)
    return "array" if _is_samples(source) else f"a {type(source).__name__}"


def _is_pair(source: Any) -> bool:
    """Whether this is an array, or PCM as bytes, and its rate."""
    is_pair = isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Real)
    return is_pair and (_is_samples(source[0]) or isinstance(source[0], (bytes, bytearray, memoryview)))


def _is_samples(source: Any) -> bool:
    return isinstance(source, np.ndarray) or is_tensor(source)


def in_thread(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield items that a thread takes from an iterable, up to `depth` in advance; errors arrive in their place."""
    source, end = iter(items), object()
    return takewhile(lambda item: item is not end, _ahead(lambda _: next(source, end), count(), 1, lambda: depth))


def _ahead(function: Callable[[Any], T], items: Iterable[Any], workers: int, depth: Callable[[], int]) -> Iterator[T]:
    """Yield function(item) in order, computed by threads, up to `depth()` in advance, in the beginning `workers` + 1."""
    source = iter(items)
    pool, process = ThreadPoolExecutor(workers), os.getpid()
    try:
        pending: deque[Future[T]] = deque(pool.submit(function, item) for item in islice(source, workers + 1))
        while pending:
            if os.getpid() != process:  # waiting for threads that a fork left behind would never end
                raise UserError("a fork cannot continue what another process has begun to read; start again there")
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(source, max(0, depth() - len(pending))))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
