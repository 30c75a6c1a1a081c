"""Sound of any length in blocks, in constant memory: from files, from bytes, from arrays, at its own rate or at another one.

A block is (samples,) float32, mono, nominally in [-1, 1], as in `datasets.audio`. The same checks and errors apply; those that need
the end of a file (truncation) are raised at the end of the blocks.

Memory is constant for paths of wav, flac, ogg, aiff and of mp3s whose header gives their length, as encoders write them. An mp3
without it, or with an ID3v2 tag at its beginning, is held compressed, because libsndfile misreads it from its path. Bytes and the
content of file objects are held too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import soxr

from datasets.audio import AudioError, downmix, read_blocks
from datasets.pcm import check_type, to_float
from models.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    AudioSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor

BLOCK_FRAMES = 1 << 17  # samples of each channel read at a time: 4 s at 32 kHz
MAX_CHANNELS = 2  # of an array: more rows are a batch or a spectrogram more often than channels
MAX_RATE = 2**31 - 1  # Hz, what a wav header can hold
MAX_PEAK = 100.0  # 40 dB above full scale: no recording is, but integers that were turned into floating point are


@dataclass(frozen=True)
class Sound:
    """A recording that is read block by block, once."""

    name: str  # what results and errors call it
    rate: int  # Hz
    blocks: Iterator[np.ndarray]  # (samples,) float32 each, none of them empty; at least one, else AudioError

    def at_rate(self, rate: int) -> Iterator[np.ndarray]:
        """Yield the blocks at another rate: the same samples as `datasets.audio.resample` makes of the whole."""
        return resampled(self.blocks, self.rate, rate, self.name)


def open_sound(source: AudioSource, sample_rate: float | None = None, *, name: str | None = None) -> Sound:
    """Open a recording.

    `source` is a path, the content of a file as bytes, a binary file object (read from its position to its end), or samples: a
    numpy array or a torch tensor. Samples are (samples,), or one or two channels: (channels, samples) or (samples, channels), whose
    shorter axis is that of the channels. Files may have any number of channels. Channels are averaged. Floating-point samples are
    in [-1, 1]; int8, int16 and int32 fill their range and uint8 has its silence at 128, as in a wav file.

    `sample_rate` in Hz is needed for samples and refused for files, which know their own. Raises FileNotFoundError, AudioError for
    what cannot be used (also while blocks are read), and UserError for an impossible argument.
    """
    if is_tensor(source):
        source = _from_torch(source)
    if isinstance(source, np.ndarray):
        return _array_sound(source, sample_rate, name or "array")
    if hasattr(source, "read"):
        name = name or str(getattr(source, "name", "") or "recording of a file object")
        source = source.read()
        if not isinstance(source, bytes):
            raise UserError(f"{name} is opened as text; open it in binary mode")
    if isinstance(source, (bytearray, memoryview)):
        source = bytes(source)
    if isinstance(source, os.PathLike):
        source = Path(source)
    if not isinstance(source, (str, Path, bytes)):
        raise UserError(f"audio is a {type(source).__name__}; allowed: a path, bytes, a binary file object, an array or a tensor")
    if sample_rate is not None:
        raise UserError(f"sample_rate is {sample_rate}, but a file knows its own rate; pass it with arrays and tensors only")
    name = name or (f"recording of {len(source)} bytes" if isinstance(source, bytes) else str(source))
    if isinstance(source, str) and "\0" in source:
        raise UserError("a path cannot hold a zero byte; pass the content of a file as bytes")
    parts = read_blocks(source, name, _block_frames)
    rate = next(parts)
    return Sound(name, rate, _checked(parts, name))


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


def _array_sound(samples: np.ndarray, rate: float | None, name: str) -> Sound:
    """Check shape, type and rate of samples, and cut them into blocks."""
    if rate is None:
        raise UserError("samples need their sample_rate in Hz")
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 1 <= rate <= MAX_RATE or rate != int(rate):
        raise UserError(f"sample_rate is {rate!r}; it must be a whole number from 1 to {MAX_RATE} Hz")
    rate = int(rate)
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
            "(tag_files takes several), average the channels of one first, or pass it as a file"
        )
    check_type(samples)
    size = _block_frames(rate)
    parts = (to_float(samples[start : start + size]) for start in range(0, len(samples), size))
    return Sound(name, rate, _checked(parts, name))


def _checked(parts: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    return (mix(part, name) for part in parts)


def mix(block: np.ndarray, name: str) -> np.ndarray:
    """(samples, channels) floating point -> (samples,) float32; refuse NaN, infinity and peaks far above full scale."""
    if not np.isfinite(block).all():
        raise AudioError(f"{name} holds NaN or infinite samples; convert it again or leave it out")
    if (peak := float(np.abs(block).max(initial=0))) > MAX_PEAK:
        raise AudioError(f"{name} has samples of {peak:.3g}, but full scale is 1; divide them or convert it again")
    return downmix(block.astype(np.float32, copy=False))


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
