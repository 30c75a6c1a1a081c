"""Read the samples of a recording in blocks, by the decoder that reads all of them."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from datasets.decoding.content import Content, Source, opened
from datasets.decoding.errors import AudioError, Report
from datasets.decoding.inspection import has_known_beginning, inspect
from datasets.decoding.mp4 import has_index, is_mp4
from datasets.decoding.pyav import ChainDecoder, FullDecoder, MissingDecoder
from datasets.decoding.sndfile import SndfileDecoder

_BLOCK_VALUES = 1 << 22  # values of a block at most, of all channels together
_SLACK = 0.1  # seconds that a recording may be shorter than announced: lossy formats round to packets
_TRAILER = 1 << 12  # bytes behind the sound of formats of which nothing more is known
_NOTHING = np.zeros((0, 1), np.float32)
_FLAC_MARK, _FLAC_SEARCH = b"fLaC", 1 << 24  # bytes
_END_SAMPLES = 2 * 1152  # decoded to see whether the end of a recording is there


class Recording:
    """A recording that is being decoded; the full decoder takes over where libsndfile refuses or ends early."""

    def __init__(self, content: Content, seconds: float | None, stack: ExitStack) -> None:
        """`seconds` is how much will be read at most; the decoders are closed by `stack`."""
        self._content, self._stack = content, stack
        self._structure = structure = inspect(content, seconds)
        self._fast: SndfileDecoder | None = None
        refusal = None
        if structure.whole:
            try:
                self._fast = stack.enter_context(SndfileDecoder(content, structure.view, structure.has_length))
            except AudioError as error:
                refusal = error
        try:
            self._full = None if self._fast else self._full_decoder(structure.rate)
        except AudioError as error:
            cut = is_mp4(content) and not has_index(content)
            reason = "its index (moov), which is written last, is missing: it is cut" if cut else error
            raise AudioError(f"{reason} (libsndfile: {refusal})" if refusal and not cut else str(reason)) from error
        decoder = self._fast or self._full
        self.rate, self.channels = decoder.rate, decoder.channels
        self.samples = self._fast.samples if self._fast else None  # where they are known before they are decoded
        self._announced = structure.announced or (self._fast.samples if self._fast else self._full.announced)
        self.plain_format = (self._fast.format, self.rate, self.channels) if self._fast else None
        self.position = 0
        self._behind = 0  # bytes behind the end of the sound
        self._is_damaged = False  # no decoder reads on

    def is_counted(self) -> bool:
        """Whether `samples` are all there are."""
        if self._fast is None or self.samples is None:
            return False
        if self._fast.format == "FLAC":  # another one behind it is noticed only when libsndfile comes to its end
            return self._content.read(0, _FLAC_SEARCH).count(_FLAC_MARK) == 1
        return self._structure.end_checked

    def _full_decoder(self, rate: int | None, channels: int | None = None) -> FullDecoder | ChainDecoder:
        if self._structure.links:
            return self._stack.enter_context(ChainDecoder(self._structure.links))
        return self._stack.enter_context(FullDecoder(self._structure.view or self._content.view(), rate, channels))

    def skip(self, samples: int) -> None:
        """Go on by some samples, from the beginning."""
        if self._fast is None:
            self.position = self._full.skip(samples)
            return
        try:
            self.position = self._fast.skip(samples)
            ended_early = self.position < samples and self._ended_early()
        except AudioError:
            ended_early = True
        if ended_early:
            self._take_over(samples)

    def read(self, samples: int) -> np.ndarray:
        """Return the next (samples, channels) float32, fewer at the end, at which there are none."""
        if self._fast is None:
            block = self._full.read(samples)
        elif self.samples is not None and self.position >= self.samples:
            block = self._read_behind(samples) if self._ended_early() else _NOTHING
        else:
            try:
                block = self._fast.read(samples if self.samples is None else min(samples, self.samples - self.position))
                ended_early = len(block) == 0 and self._ended_early()
            except AudioError:
                ended_early = True
            if ended_early:
                block = self._read_behind(samples)
        self.position += len(block)
        return block

    def _read_behind(self, samples: int) -> np.ndarray:
        """Return what the full decoder finds behind the position."""
        try:
            self._take_over(self.position)
            block = self._full.read(samples)
        except AudioError as error:
            self._is_damaged = self.samples is None or self.position < self.samples
            if self._is_damaged and (self.position == 0 or isinstance(error, MissingDecoder)):
                raise
            return _NOTHING
        self._behind = 0 if len(block) else self._behind
        return block

    def _ended_early(self) -> bool:
        """Whether libsndfile has ended before it had all samples, or with bytes left that may be some."""
        slack = 0 if self._structure.exact else _SLACK * self.rate
        if self.samples is not None and self.position < self.samples - slack:
            return True
        self._behind = 0 if self._structure.end_checked else self._fast.unread()
        return self._behind > _TRAILER

    def _take_over(self, position: int) -> None:
        """Go on with the full decoder, at a sample."""
        self._full, self._fast = self._full_decoder(self.rate, self.channels), None
        self.position = self._full.skip(position)

    def remarks(self) -> list[str]:
        """What is to be said at the end of the recording, above all of what is missing."""
        slack = 0 if self._structure.exact else self._full.tolerance if self._full else _SLACK * self.rate
        missing = max(0, (self._announced or 0) - self.position, self._full.unread() if self._full else 0)
        if missing <= slack:
            missing = round(self.position / self._structure.part_there) - self.position
        if missing > 0:
            seconds = [samples / self.rate for samples in (self.position, self.position + missing, missing)]
            digits = 1 if seconds[2] >= 0.1 else 4
            there, announced, gap = (f"{value:.{digits}f}" for value in seconds)
            return [f"is shorter than its header says: {there} of {announced} s are there, {gap} s are missing"]
        remarks = list(self._structure.remarks)
        if self._is_damaged:
            remarks.append(f"is damaged behind {self.position / self.rate:.1f} s, where it cannot be decoded")
        if self._behind > _TRAILER:
            remarks.append(f"is followed by {self._behind} bytes that are not read")
        if self._full and self._full.lost > _SLACK * self.rate:
            remarks.append(f"is damaged: about {self._full.lost / self.rate:.1f} s cannot be decoded")
        return remarks


def _check_beginning(content: Content) -> None:
    """Raise AudioError for a file that begins like no recording."""
    if not has_known_beginning(content):
        with ExitStack() as stack:
            Recording(content, 0, stack)


@contextmanager
def _recording(source: Source, name: str, seconds: float | None = None) -> Iterator[Recording]:
    """Open a recording; whatever is raised while it is read gets its name."""
    try:
        with opened(source, name, _check_beginning) as content, ExitStack() as stack:
            yield Recording(content, seconds, stack)
    except AudioError as error:
        raise error if str(error).startswith(name) else AudioError(f"{name} cannot be decoded: {error}") from error


def read_blocks(
    source: Source,
    name: str,
    block_frames: Callable[[int], int],
    *,
    start: float = 0.0,
    end: float | None = None,
    strict: bool = False,
    warnings: list[str] | None = None,
) -> Iterator[int | np.ndarray]:
    """Yield the rate of a recording, then its samples in blocks, (samples, channels) float32.

    `block_frames` says for a rate how long a block is at most. `start` and `end` in seconds take a part; an `end` beyond the
    recording is its end. What is missing of a recording, as its container says or as is seen when it is decoded, is a line in
    `warnings`, which is logged if that is None, and an AudioError if `strict`.

    Raises FileNotFoundError, and AudioError for what cannot be decoded and for a part without samples.
    """
    if not 0 <= start < math.inf or (end is not None and not end > start):
        raise AudioError(f"{name}: start is {start} and end {end}; needed: seconds, 0 <= start < end")
    report = Report(name, strict, warnings)
    with _recording(source, name, end) as recording:
        rate = recording.rate
        yield rate
        first, last = round(start * rate), math.inf if end is None else max(1, round(end * rate))
        size = max(1, min(block_frames(rate), _BLOCK_VALUES // recording.channels))
        if first:
            recording.skip(first)
        begin = recording.position
        while recording.position < last and len(block := recording.read(min(size, last - recording.position))):
            yield block
        if recording.position < last:
            for remark in recording.remarks():
                report(remark)
        if recording.position == begin:
            raise AudioError(f"{name} holds no samples; leave it out" if first == 0 else f"{name} ends before {start:g} s")


def measured(source: Source, name: str, *, check_end: bool = False, warnings: list[str] | None = None) -> tuple[int, int]:
    """Return the samples and the rate (Hz) of a recording; see `datasets.audio.measure`."""
    report = Report(name, warnings=warnings)
    with _recording(source, name) as recording:
        rate = recording.rate
        if (is_counted := recording.is_counted()) and not check_end:
            recording.position = recording.samples
        else:
            if is_counted:
                recording.skip(max(0, recording.samples - _END_SAMPLES))
            while len(recording.read(1 << 16)):
                pass
        for remark in recording.remarks():
            report(remark)
        if recording.position == 0:
            raise AudioError(f"{name} holds no samples; leave it out")
        return recording.position, rate


def plain_format(source: Source, name: str) -> tuple[str, int, int] | None:
    """Return libsndfile's name of the format, rate (Hz) and channels of a recording that it reads whole, else None."""
    with _recording(source, name) as recording:
        return recording.plain_format
