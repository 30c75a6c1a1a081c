"""Decode, downmix, resample, crop or pad, and encode recordings held in files or in memory.

A waveform here is (samples,) float32, mono, nominally in [-1, 1] (lossy formats may overshoot a little). Formats are
recognised by content and not by file name; `datasets.decoding` reads them.
"""

import io
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from datasets.channels import STRETCH_SECONDS, mono
from datasets.decoding import pyav, sndfile
from datasets.decoding.content import Source, source_name
from datasets.decoding.errors import AudioError
from datasets.decoding.reading import measured, plain_format, read_blocks
from models.errors import UserError

SUFFIXES = (*sndfile.SUFFIXES, *pyav.SUFFIXES)  # of the names of recordings; decoding itself goes by content
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz, the rates of MPEG-1, 2 and 2.5 layer 3

_BLOCK = 1 << 22  # samples read at a time
_HEAD_MARGIN = 0.1  # seconds decoded beyond a requested head, many times the reach of the resampling filter


def decode(
    source: Source,
    *,
    seconds: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    strict: bool = False,
    warnings: list[str] | None = None,
    name: str | None = None,
) -> tuple[np.ndarray, int]:
    """Read a recording as (samples,) float32 at its own rate, and that rate in Hz.

    `source` is a path, the bytes of a complete file, or a binary file object. `start` and `end` in seconds take a part.
    `seconds` stops early: no more than about that much is read. Channels are mixed to one, see
    `datasets.channels`, or `channel`, from 1, is taken alone.
    `name` is what errors call the recording; a path is its own name.
    A recording that is shorter than its container says is a line in `warnings`, which is logged if that is None, and an
    AudioError if `strict`.

    Raises FileNotFoundError, and AudioError for whatever else keeps the source from being used: a folder, an empty
    file, a format that is not audio, no samples, or samples that are NaN or infinite.
    """
    name = name or source_name(source)
    head = math.inf if seconds is None else seconds + _HEAD_MARGIN
    if seconds is not None:  # whole stretches, by which channels are mixed
        stretches = math.ceil(seconds / STRETCH_SECONDS) * STRETCH_SECONDS
        end = min(math.inf if end is None else end, start + stretches + _HEAD_MARGIN)
    parts = read_blocks(
        source, name, lambda rate: math.ceil(min(_BLOCK, head * rate)), start=start, end=end, strict=strict, warnings=warnings
    )
    rate = next(parts)
    waveforms, samples = [], 0
    for waveform in mono(parts, rate, name, channel=channel, warnings=warnings):
        waveforms.append(waveform)
        samples += len(waveform)
        if samples >= head * rate:
            break
    waveform = waveforms[0] if len(waveforms) == 1 else np.concatenate(waveforms)
    if seconds is not None:
        waveform = waveform[: math.ceil(head * rate)]
    return waveform, rate


def measure(
    source: Source, *, check_end: bool = False, warnings: list[str] | None = None, name: str | None = None
) -> tuple[int, int]:
    """Return how many samples `decode` gives at most (mp3: up to 2304 less), and the rate of a recording in Hz.

    Headers are read, and the recording is decoded only where they do not say it: other formats than wav, flac, ogg, mp3, aiff, caf
    and w64, mp3s without a frame count, and damage. `check_end` decodes the last samples in any case. Errors and warnings are those
    of `decode`, as far as they show.
    """
    name = name or source_name(source)
    return measured(source, name, check_end=check_end, warnings=warnings)


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Change the rate (Hz) of (samples,) float32 with soxr's high-quality filter; equal rates return the input itself.

    Whatever lies above half of the lower rate is removed. The length becomes about samples * to_rate / from_rate.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise UserError(f"sample rates are {from_rate} and {to_rate} Hz; both must be positive")
    return waveform if from_rate == to_rate else soxr.resample(waveform, from_rate, to_rate, quality="HQ")


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Samples that `resample` makes of so many, or one more: it rounds up or down."""
    return -(-samples * to_rate // from_rate)


def load(source: Source, sample_rate: int, *, name: str | None = None, **reading: Any) -> np.ndarray:
    """Read a recording as (samples,) float32, mono, at `sample_rate` Hz; `reading` are keywords of `decode`, errors are its own."""
    waveform, rate = decode(source, name=name, **reading)
    waveform = resample(waveform, rate, sample_rate)
    if len(waveform) == 0:
        raise AudioError(f"{name or source_name(source)} is shorter than one sample at {sample_rate} Hz; leave it out")
    return waveform


def crop_or_pad(waveform: np.ndarray, length: int, start: int = 0) -> np.ndarray:
    """Take `length` samples of (samples,) from sample `start` on; zeros follow where there are too few.

    A crop is a view of the input, not a copy. Raises UserError for a negative length or start.
    """
    if length < 0 or start < 0:
        raise UserError(f"length is {length} and start {start}; both must be 0 samples or more")
    piece = waveform[start : start + length]
    return piece if len(piece) == length else np.pad(piece, (0, length - len(piece)))


def encode_mp3(waveform: np.ndarray, sample_rate: int, *, compression: float = 0.0) -> bytes:
    """Encode (samples,) float32 in [-1, 1] at `sample_rate` Hz as one complete mp3 file.

    Variable bit rate: `compression` 0 is the best quality, about 96 kbit/s for full-band mono at 32 kHz, flat to
    14 kHz; towards 1 files shrink. (LAME's constant 128 kbit/s is larger and 0.4 dB quieter, so not used.)
    Decoding gives back the same number of samples. Raises AudioError for no samples, NaN or infinite ones, several
    channels, or a rate that mp3 does not support.
    """
    if waveform.ndim != 1 or len(waveform) == 0 or not np.isfinite(waveform).all():
        raise AudioError(f"an mp3 needs (samples,) finite values, one or more; got shape {waveform.shape}")
    if sample_rate not in MP3_RATES:
        raise AudioError(f"mp3 has no {sample_rate} Hz; resample to one of {', '.join(map(str, MP3_RATES))}")
    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, format="MP3", bitrate_mode="VARIABLE", compression_level=min(compression, 0.99))
    return file.getvalue()


def encode_wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Encode (samples,) float32 at `sample_rate` Hz as a complete wav file of 16 bits."""
    file = io.BytesIO()  # libsndfile does not report a full disk as an OSError, so the caller writes the file
    soundfile.write(file, waveform, sample_rate, subtype="PCM_16", format="WAV")
    return file.getvalue()


def to_mp3(source: Source, sample_rate: int = 32000, *, name: str | None = None, warnings: list[str] | None = None) -> bytes:
    """Turn a recording into a mono mp3 at `sample_rate` Hz; one that is whole and in this form already is returned byte for byte.

    The source is decoded in either case, so what comes back can be decoded. Errors and warnings are those of `decode`.
    """
    name = name or source_name(source)
    if hasattr(source, "read"):
        source = source.read()
    remarks: list[str] = []
    waveform, rate = decode(source, name=name, warnings=remarks)
    if warnings is not None:
        warnings += remarks
    else:
        for remark in remarks:
            logging.warning(remark)
    if not remarks and plain_format(source, name) == ("MP3", sample_rate, 1):
        return bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else Path(source).read_bytes()
    try:
        return encode_mp3(resample(waveform, rate, sample_rate), sample_rate)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error
