"""Decode, downmix, resample, crop or pad, and encode recordings held in files or in memory.

A waveform here is (samples,) float32, mono, nominally in [-1, 1] (lossy formats may overshoot a little). Decoding is
libsndfile's: wav, flac, ogg, mp3, aiff and more, recognised by content and not by file name.
"""

import io
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from datasets.channels import mono
from datasets.decoding.errors import AudioError
from models.errors import UserError

# File name suffixes of what libsndfile reads; decoding itself goes by content.
SUFFIXES = (".mp3", ".flac", ".wav", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64")
SUFFIXES += (".wave", ".aifc", ".snd", ".rf64", ".voc", ".sph")

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz, the rates of MPEG-1, 2 and 2.5 layer 3

# libsndfile's log, where a sample chunk announces more bytes than the file has: 'data : 640000 (should be 299957)'.
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED = 0x7FFF0000  # bytes; sizes from here on are written by programs that could not know the length in advance
MP3_SLACK = 2 * 1152  # samples; an mp3's announced length is exact to a frame or two
_HEAD_BYTES = 4096  # hold the first frame of an mp3, of at most 1441 bytes
_BLOCK = 1 << 22  # samples read at a time
_HEAD_MARGIN = 0.1  # seconds decoded beyond a requested head, many times the reach of the resampling filter


def _source_name(source: str | Path | bytes) -> str:
    return f"recording of {len(source)} bytes" if isinstance(source, bytes) else str(source)


class _UnannouncedMp3(io.BytesIO):
    """An mp3 without a frame count, which must be decoded to its end to know its length.

    libsndfile estimates the length from the file's size and the first frame's bit rate, and stops there: early if the rate
    varies. So the size it asks for is answered with more than any change of rate (8 to 320 kbit/s) can make up for.
    """

    _asks_size = False

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._asks_size = whence == io.SEEK_END
        return super().seek(offset, whence)

    def tell(self) -> int:
        return super().tell() * (40 if self._asks_size else 1)


def _mended(source: str | Path | bytes) -> str | Path | bytes | _UnannouncedMp3:
    """Return an mp3 that libsndfile would misread in a form that it reads correctly; all other files as they are.

    It takes a leading ID3v2 tag (id3.org, 2.4.0, section 3.1) for audio when it estimates a length, and trusts its estimate.
    """
    if isinstance(source, bytes):
        head = source[:_HEAD_BYTES]
    else:
        with open(source, "rb") as file:
            head = file.read(_HEAD_BYTES)
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    elif not _is_mp3(head) or _has_frame_count(head):
        return source
    content = (source if isinstance(source, bytes) else Path(source).read_bytes())[start:]
    head = content[:_HEAD_BYTES]  # other formats can carry a tag as well
    return _UnannouncedMp3(content) if _is_mp3(head) and not _has_frame_count(head) else content


def _is_mp3(head: bytes) -> bool:
    """Whether a file begins with the eleven set bits of an MPEG audio frame."""
    return head[:1] == b"\xff" and head[1:2] >= b"\xe0"


def _has_frame_count(head: bytes) -> bool:
    """Whether the first frame holds the number of frames, as encoders write it."""
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


@contextmanager
def _readable(source: str | Path | bytes | io.BytesIO) -> Iterator[str | bytes | Path | int | io.BytesIO]:
    """Yield what libsndfile reads a source from: for bytes, where there is such a thing, the descriptor of a file in memory.

    It fetches each frame of an mp3 by two reads, which as calls into Python take 5 to 8 % of the time of decoding.
    """
    if isinstance(source, (str, Path)) and os.name == "posix":
        yield os.fsencode(source)  # a name that is not UTF-8 is a name as well
    elif not isinstance(source, bytes):
        yield source
    elif hasattr(os, "memfd_create"):
        with open(os.memfd_create("recording"), "wb") as file:
            file.write(source)
            file.seek(0)
            yield file.fileno()
    else:
        yield io.BytesIO(source)


@contextmanager
def opened(source: str | Path | bytes, name: str) -> Iterator[tuple[soundfile.SoundFile, bool]]:
    """Yield a recording opened by libsndfile, and whether its header has its length; errors, also of reading it, as in `decode`."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{name} not found; give the path of an audio file")
        if path.is_dir():
            raise AudioError(f"{name} is a folder; give the path of one audio file")
        size = path.stat().st_size
    else:
        size = len(source)
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes); fetch or convert it again")
    try:
        source = _mended(source)
        with _readable(source) as readable, soundfile.SoundFile(readable, closefd=False) as file:
            yield file, not isinstance(source, _UnannouncedMp3)
            short_chunk = _SHORT_CHUNK.search(file.extra_info)
    # TypeError is soundfile's answer to a path that ends in .raw; an absurd length in a header is a MemoryError.
    except (soundfile.SoundFileError, OSError, TypeError, MemoryError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise AudioError(f"{name} cannot be decoded ({reason.strip()}); needed: a complete wav, flac, ogg or mp3") from error
    if short_chunk:
        announced, present = map(int, short_chunk.groups())
        if announced < _STREAMED and announced - present > 1:  # a forgotten padding byte does no harm
            raise AudioError(f"{name} is truncated: {present} of {announced} sample bytes are there; fetch it again")


def find(folder: str | Path) -> list[Path]:
    """Return the recordings in a folder and its subfolders, recognised by their suffix, in the order of their paths."""
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def read_blocks(
    source: str | Path | bytes,
    name: str,
    block_frames: Callable[[int], int],
    seconds: float | None = None,
    *,
    start: float = 0.0,
    end: float | None = None,
    strict: bool = False,
    warnings: list[str] | None = None,
) -> Iterator[int | np.ndarray]:
    """Yield the rate of a recording, then its samples in blocks, (samples, channels) float32; arguments and errors as in `decode`.

    `block_frames` says for a rate how long a block is.
    """
    with opened(source, name) as (file, has_length):
        rate, done = file.samplerate, 0
        yield rate
        file.seek(min(file.frames, round(start * rate)))
        seconds = seconds if end is None else end - start
        announced = file.frames if seconds is None else min(file.frames, math.ceil((seconds + _HEAD_MARGIN) * rate))
        while done < announced:
            block = file.read(min(block_frames(rate), announced - done), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            done += len(block)
            yield block
    if done + MP3_SLACK < announced and has_length:
        raise AudioError(f"{name} is truncated: {done} of {announced} samples are there; fetch it again")
    if done == 0:
        raise AudioError(f"{name} holds no samples; leave it out")


def decode(source: str | Path | bytes, *, seconds: float | None = None, name: str | None = None) -> tuple[np.ndarray, int]:
    """Read a recording as (samples,) float32 at its own rate, and that rate in Hz. All channels are averaged.

    `source` is a path, or the bytes of a complete file. `seconds` stops early: no more than about that much is read.
    `name` is what errors call the recording; a path is its own name.
    Truncation is noticed in wav, aiff, flac and mp3; an ogg, or an mp3 without a frame count, is just shorter.

    Raises FileNotFoundError, and AudioError for whatever else keeps the source from being used: a folder, an empty
    file, a format that is not audio, damage, no samples, or samples that are NaN or infinite.
    """
    name = name or _source_name(source)
    rate, *blocks = read_blocks(source, name, lambda rate: _BLOCK, seconds)
    waveforms = list(mono(blocks, rate, name))
    return waveforms[0] if len(waveforms) == 1 else np.concatenate(waveforms), rate


def measure(source: str | Path | bytes, *, check_end: bool = False, name: str | None = None) -> tuple[int, int]:
    """Read from a recording's header how many samples `decode` gives at most (mp3: up to 2304 less), and its rate in Hz.

    Only an mp3 without a frame count is decoded for that. `check_end` reads the last samples as well, which notices
    truncation without decoding the rest: in about 2 ms for a minute of mp3. Errors are those of `decode`, as far as they show.
    """
    name = name or _source_name(source)
    with opened(source, name) as (file, has_length):
        samples, rate = file.frames, file.samplerate
        if check_end and samples and has_length:
            file.seek(max(0, samples - MP3_SLACK - 1))
            if len(file.read(MP3_SLACK)) == 0:
                raise AudioError(f"{name} is truncated: its end is missing; fetch it again")
    if not has_length:
        samples = len(decode(source, name=name)[0])
    if samples == 0:
        raise AudioError(f"{name} holds no samples; leave it out")
    return samples, rate


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


def load(source: str | Path | bytes, sample_rate: int, *, seconds: float | None = None, name: str | None = None) -> np.ndarray:
    """Read a recording as (samples,) float32, mono, at `sample_rate` Hz; arguments and errors are those of `decode`."""
    waveform, rate = decode(source, seconds=seconds, name=name)
    waveform = resample(waveform, rate, sample_rate)
    if len(waveform) == 0:
        raise AudioError(f"{name or _source_name(source)} is shorter than one sample at {sample_rate} Hz; leave it out")
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


def to_mp3(source: str | Path | bytes, sample_rate: int = 32000, *, name: str | None = None) -> bytes:
    """Turn a recording into a mono mp3 at `sample_rate` Hz; one that is in this form already is returned byte for byte.

    The source is decoded in either case, so what comes back can be decoded. Errors are those of `decode`.
    """
    waveform, rate = decode(source, name=name)
    info = soundfile.info(io.BytesIO(source) if isinstance(source, bytes) else source)
    if (info.format, info.samplerate, info.channels) == ("MP3", sample_rate, 1):
        return source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        return encode_mp3(resample(waveform, rate, sample_rate), sample_rate)
    except AudioError as error:
        raise AudioError(f"{name or _source_name(source)}: {error}") from error
