"""Sound of any length in blocks, in constant memory: from files, bytes, arrays and raw PCM, at its own rate or at another one.

A block is (samples,) float32, mono, nominally in [-1, 1], as in `datasets.audio`. The same checks and errors apply; those that need
the end of a file are raised at the end of the blocks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import soxr

from datasets.audio import AudioError, read_blocks
from datasets.channels import check_channel, mono
from datasets.decoding.content import source_name
from datasets.streams.marks import FRAMES_BYTES, HEAD_BYTES, container, unmarked
from datasets.streams.pcm import check_type, to_float
from models.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    AudioSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor

BLOCK_FRAMES = 1 << 17  # samples of each channel read at a time: 4 s at 32 kHz
MAX_CHANNELS = 2  # of an array: more rows are a batch or a spectrogram more often than channels
MAX_RATE = 2**31 - 1  # Hz, what a wav header can hold


@dataclass(frozen=True)
class Sound:
    """A recording, or a part of one, that is read block by block, once."""

    name: str  # what results and errors call it
    rate: int  # Hz
    channels: int  # of the recording; the blocks have one
    blocks: Iterator[np.ndarray]  # (samples,) float32 each, none of them empty; at least one, else AudioError
    warnings: list[str]  # one line each; complete when all blocks are read

    def at_rate(self, rate: int) -> Iterator[np.ndarray]:
        """Yield the blocks at another rate: the same samples as `datasets.audio.resample` makes of the whole."""
        return resampled(self.blocks, self.rate, rate, self.name)


def open_sound(
    source: AudioSource,
    sample_rate: float | None = None,
    *,
    name: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    strict: bool = False,
) -> Sound:
    """Open a recording.

    `source` is a path, the content of a file as bytes, a binary file object (read from its position to its end), or samples: a
    numpy array or a torch tensor, or raw PCM as bytes (16 bits, little-endian, one channel). Arrays are (samples,), or one or two
    channels: (channels, samples) or (samples, channels), whose shorter axis is that of the channels. Files may have any number of
    channels. They are mixed to one, see `datasets.channels`, or `channel`, from 1, is taken alone. Floating-point samples are in
    [-1, 1]; int8, int16 and int32 fill their range and uint8 has its silence at 128, as in a wav file.

    `sample_rate` in Hz is needed for samples and refused for files, which know their own. Only the part from `start` to `end`
    (None, or more than there is: the end), in seconds, is read. A file that is damaged is used as far as it can be read, with a
    warning in the result, or refused if `strict`. Raises FileNotFoundError, AudioError for what cannot be used (also while blocks
    are read), and UserError for an impossible argument.
    """
    check_part(start, end)
    warnings: list[str] = []
    if is_tensor(source):
        source = _from_torch(source)
    if isinstance(source, (bytes, bytearray, memoryview)) and sample_rate is not None:
        name = name or f"PCM of {len(source)} bytes"
        source = _pcm_samples(bytes(source), name)
    if isinstance(source, np.ndarray):
        name = name or "array"
        rate = _whole_rate(sample_rate)
        parts = _array_blocks(source, rate, name, start, end)
    else:
        name = name or _file_name(source)
        if sample_rate is not None:
            raise UserError(f"sample_rate is {sample_rate}, but a file knows its own rate; pass it with samples only")
        parts = read_blocks(source, name, _block_frames, start=start, end=end, strict=strict, warnings=warnings)
        rate = next(parts)
    first = next(parts)
    channels = first.shape[1]
    if channel is not None:
        check_channel(channel, channels, name)
    blocks = mono(chain([first], parts), rate, name, channel=channel, warnings=warnings)
    return Sound(name, rate, channels, blocks, warnings)


def check_part(start: float, end: float | None) -> None:
    """Raise UserError unless a part begins at 0 s or later and ends behind its beginning."""
    if not (_is_time(start) and start < math.inf) or (end is not None and not (_is_time(end) and end > start)):
        raise UserError(
            f"the part from {start!r:.50} to {end!r:.50} s is none; start must be 0 s or more, and end, where it is given, greater"
        )


def _is_time(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value >= 0


def _file_name(source: object) -> str:
    """Return what errors call a file; UserError for what is none."""
    if not (isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read")):
        raise UserError(f"audio is a {type(source).__name__}; allowed: a path, bytes, a binary file object, an array or a tensor")
    if isinstance(source, str) and "\0" in source:
        raise UserError("a path cannot hold a zero byte; pass the content of a file as bytes")
    return source_name(source)


def _block_frames(rate: int) -> int:
    """Return how many samples to read at a time: at most 4 s, because a low rate becomes many samples at a high one."""
    return min(BLOCK_FRAMES, 4 * rate)


def is_tensor(source: object) -> bool:
    """Return whether this is a torch tensor, without an import of torch."""
    return hasattr(source, "detach") and hasattr(source, "cpu")  # file objects can be detached too


def _from_torch(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has none
        tensor = tensor.float()
    return tensor.numpy()


def _whole_rate(rate: float | None) -> int:
    if rate is None:
        raise UserError("samples need their sample_rate in Hz")
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 1 <= rate <= MAX_RATE or rate != int(rate):
        raise UserError(f"sample_rate is {rate!r}; it must be a whole number from 1 to {MAX_RATE} Hz")
    return int(rate)


def _pcm_samples(content: bytes, name: str) -> np.ndarray:
    if kind := container(content[:HEAD_BYTES]) or unmarked(content[:FRAMES_BYTES]):
        raise UserError(f"{name} begins as {kind}, and not as PCM; leave sample_rate out, files know their own")
    if len(content) % 2:
        raise UserError(f"{name} is no PCM of 16 bits, as its size is odd; pass whole samples, or others as an array")
    return np.frombuffer(content, "<i2").astype(np.int16, copy=False)


def _array_blocks(samples: np.ndarray, rate: int, name: str, start: float, end: float | None) -> Iterator[np.ndarray]:
    """Check shape and type of samples; return a part of them in blocks of (samples, channels) floating point."""
    if samples.ndim not in (1, 2):
        raise UserError(f"samples have shape {samples.shape}; allowed: (samples,), (channels, samples), (samples, channels)")
    if samples.size == 0:
        raise AudioError(f"{name} of shape {samples.shape} holds no samples; leave it out")
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape == (2, 2):
        raise UserError("samples have shape (2, 2), in which channels and samples look alike; average the channels first")
    elif samples.shape[0] < samples.shape[1]:
        samples = samples.T  # (samples, channels)
    if samples.shape[1] > MAX_CHANNELS:
        raise UserError(
            f"samples of {samples.shape[1]} rows are a batch, or more than {MAX_CHANNELS} channels; pass recordings one by one "
            "or to tag_files, average the channels of one first, or pass it as a file"
        )
    check_type(samples)
    part = samples[round(start * rate) : None if end is None else round(end * rate)]
    if len(part) == 0:
        raise AudioError(f"{name} takes {len(samples) / rate:g} s, so nothing is left from {start:g} s on")
    size = _block_frames(rate)
    return (to_float(part[first : first + size]) for first in range(0, len(part), size))


def resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int, name: str = "recording") -> Iterator[np.ndarray]:
    """Change the rate of blocks: the same filter and the same samples as `datasets.audio.resample` gives for the whole."""
    if from_rate == to_rate:
        yield from blocks
        return
    resampler = Resampler(from_rate, to_rate)
    empty = True
    for block in blocks:
        if len(block := resampler.push(block)):
            empty = False
            yield block
    if len(block := resampler.finish()):
        yield block
    elif empty:
        raise AudioError(f"{name} is shorter than one sample at {to_rate} Hz; leave it out")


class Resampler:
    """Resample a stream that comes in pieces of any size; the output does not depend on how it was cut."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, block: np.ndarray) -> np.ndarray:
        if self._stream is None or len(block) == 0:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block))

    def finish(self) -> np.ndarray:
        """Return what the filter still holds."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)
