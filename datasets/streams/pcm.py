"""Raw PCM: samples without a header, and the scale of integer samples, which arrays and wav files share.

Formats are named as ffmpeg names them; all are little-endian, channels interleaved.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.errors import UserError

# dtype -> (what silence is, what full scale is); floating-point samples are taken as they are
INTEGERS = {"uint8": (128, 128), "int8": (0, 128), "int16": (0, 1 << 15), "int32": (0, 1 << 31)}


def check_type(samples: np.ndarray) -> None:
    """Refuse what holds no samples, such as booleans or 64-bit integers, by a UserError."""
    if samples.dtype.name not in INTEGERS and samples.dtype.kind != "f":
        raise UserError(f"samples are {samples.dtype}; allowed: {', '.join(INTEGERS)}, or floating point in [-1, 1]")


def to_float(samples: np.ndarray) -> np.ndarray:
    """Bring integers of any shape, which fill the range of their type, to [-1, 1] float32; return floating point as it is."""
    if samples.dtype.name not in INTEGERS:
        return samples
    silence, full_scale = INTEGERS[samples.dtype.name]
    # int32 through float64: its 24 highest bits are what float32 keeps after the division, not before
    return ((samples.astype(np.float64 if full_scale > 1 << 15 else np.float32) - silence) / full_scale).astype(np.float32)


def _typed(dtype: str) -> Callable[[bytes], np.ndarray]:
    native = np.dtype(dtype).newbyteorder("=")
    return lambda content: np.frombuffer(content, dtype).astype(native, copy=False)


def _int24(content: bytes) -> np.ndarray:
    """3 bytes a sample -> int32, its lowest byte 0."""
    samples = np.zeros((len(content) // 3, 4), np.uint8)
    samples[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return samples.reshape(-1).view("<i4").astype(np.int32, copy=False)


def _table(decode: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], np.ndarray]:
    table = decode(np.arange(256)).astype(np.int16)
    return lambda content: table[np.frombuffer(content, np.uint8)]


def _mulaw(code: np.ndarray) -> np.ndarray:
    """ITU-T G.711, mu-law: 8 bits -> 14 bits, at the scale of 16."""
    code = ~code & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude)


def _alaw(code: np.ndarray) -> np.ndarray:
    """ITU-T G.711, A-law: 8 bits -> 13 bits, at the scale of 16."""
    code = code ^ 0x55
    segment = (code & 0x70) >> 4
    magnitude = (((code & 0x0F) << 4) + np.where(segment == 0, 0x008, 0x108)) << np.maximum(segment - 1, 0)
    return np.where(code & 0x80, magnitude, -magnitude)


# name -> (bytes of a sample, what makes an array of them)
FORMATS = {
    "s16le": (2, _typed("<i2")),
    "s32le": (4, _typed("<i4")),
    "f32le": (4, _typed("<f4")),
    "u8": (1, _typed("u1")),
    "mulaw": (1, _table(_mulaw)),
    "alaw": (1, _table(_alaw)),
    "s24le": (3, _int24),
    "f64le": (8, _typed("<f8")),
}


class Pcm:
    """Turn raw PCM that comes in pieces of any size into samples."""

    def __init__(self, format: str, channels: int, name: str = "stream") -> None:
        """`format` is one of `FORMATS`; `name` is what errors call the recording."""
        if format not in FORMATS:
            raise UserError(f"the format of {name} is {format!r}; allowed: {', '.join(FORMATS)}")
        self.width, self._read = FORMATS[format]
        self._channels = channels
        self._name = name
        self._rest = b""  # the beginning of a frame that continues in the next piece

    def push(self, content: bytes) -> np.ndarray:
        """Return the (samples, channels) float32 of the frames that `content` completes."""
        content = self._rest + content
        whole = len(content) - len(content) % (self.width * self._channels)
        self._rest = content[whole:]
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused later
            return to_float(self._read(content[:whole])).astype(np.float32, copy=False).reshape(-1, self._channels)
