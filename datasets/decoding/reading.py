"""Read the samples of a recording in blocks, by the decoder that reads all of them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from datasets.decoding.content import Content, Source, opened
from datasets.decoding.errors import AudioError, Report
from datasets.decoding.sndfile import SndfileDecoder
from datasets.decoding.structure import inspect

MP3_SLACK = 2 * 1152  # samples; an mp3 header is exact to a frame or two
_SLACK = 0.1  # seconds that a recording may be shorter than announced without a remark: lossy formats round to frames
_BLOCK_VALUES = 1 << 22  # values of a block at most, of all channels together


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
    recording is its end. A recording that is shorter than its container says is a line in `warnings`, which is logged if that is
    None, and an AudioError if `strict`.

    Raises FileNotFoundError, and AudioError for what cannot be decoded and for a part without samples.
    """
    if not 0 <= start < math.inf or (end is not None and not end > start):
        raise AudioError(f"{name}: start is {start} and end {end}; needed: seconds, 0 <= start < end")
    report = Report(name, strict, warnings)
    with opened(source, name) as content, decoder_of(content, name) as decoder:
        rate = decoder.rate
        yield rate
        first, last = round(start * rate), None if end is None else max(1, round(end * rate))
        size = max(1, min(block_frames(rate), _BLOCK_VALUES // decoder.channels))
        if first:
            decoder.skip(first)
        done = first
        while (last is None or done < last) and len(block := decoder.read(size if last is None else min(size, last - done))):
            done += len(block)
            yield block
        announced = decoder.announced
        if announced is not None and (last is None or done < last):
            expected = announced if last is None else min(announced, last)
            if done < decoder.samples - _SLACK * rate or (decoder.samples < expected and done < expected):
                report(
                    f"is shorter than its header says: {done / rate:.1f} of {announced / rate:.1f} s are there, "
                    f"{(announced - done) / rate:.1f} s are missing"
                )
        if done == first:
            what = "holds no samples; leave it out" if first == 0 else f"ends before {start:g} s; take an earlier start"
            raise AudioError(f"{name} {what}")


@contextmanager
def decoder_of(content: Content, name: str) -> Iterator[SndfileDecoder]:
    """Open the decoder that reads a recording; errors get its name."""
    structure = inspect(content)
    try:
        with SndfileDecoder(content, structure.view, structure.has_length) as decoder:
            yield decoder
    except AudioError as error:
        if name in str(error):
            raise
        raise AudioError(f"{name} cannot be decoded ({error}); needed: a complete wav, flac, ogg or mp3") from error


def measured(source: Source, name: str, *, check_end: bool = False, warnings: list[str] | None = None) -> tuple[int, int]:
    """Return the samples and the rate (Hz) of a recording; see `datasets.audio.measure`."""
    report = Report(name, False, warnings)
    with opened(source, name) as content, decoder_of(content, name) as decoder:
        samples, rate = decoder.samples, decoder.rate
        if samples is not None and check_end:
            end = decoder.announced
            if samples and end == samples:
                decoder.skip(max(0, samples - MP3_SLACK - 1))
                missing = not len(decoder.read(MP3_SLACK))
            else:
                missing = samples < end
            if missing:
                report("is shorter than its header says")
        if samples is None:
            samples = 0
            while len(block := decoder.read(1 << 16)):
                samples += len(block)
    if samples == 0:
        raise AudioError(f"{name} holds no samples; leave it out")
    return samples, rate
