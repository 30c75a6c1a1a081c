"""What FFmpeg's decoders, driven in the simplest way, find in a recording."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
import soxr

_ZERO_AND_FULL_SCALE = {"uint8": (128, 128), "int16": (0, 1 << 15), "int32": (0, 1 << 31)}


@dataclass(frozen=True)
class Found:
    """Sound as it was found; `samples` (samples,) float32 is the first channel."""

    samples: np.ndarray
    rate: int  # Hz, of the first part; parts at other rates are resampled to it

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def full_decoding(content: bytes) -> Found | None:
    """Decode the first sound track as far as it goes, past packets that are damaged; None where there is none."""
    parts: list[tuple[int, np.ndarray]] = []
    try:
        with av.open(io.BytesIO(content), metadata_errors="ignore") as container:
            for packet in container.demux(audio=0):
                try:
                    parts += [(frame.sample_rate, _first_channel(frame)) for frame in packet.decode()]
                except av.error.InvalidDataError:
                    continue
    except (av.error.FFmpegError, IndexError, ValueError, MemoryError):
        pass  # what came before it counts
    if not parts:
        return None
    rate = parts[0][0]
    return Found(np.concatenate([_at_rate(samples, own, rate) for own, samples in parts]), rate)


def _first_channel(frame: av.AudioFrame) -> np.ndarray:
    if frame.layout.nb_channels >= 8:  # of whose planes PyAV loses count
        frame = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate).resample(frame)[0]
    array = frame.to_ndarray()
    samples = array[0] if frame.format.is_planar else array[0, :: frame.layout.nb_channels]
    zero, full_scale = _ZERO_AND_FULL_SCALE.get(array.dtype.name, (0, 1))
    return ((samples.astype(np.float64) - zero) / full_scale).astype(np.float32)


def _at_rate(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    return samples if own == rate or own <= 0 or rate <= 0 else soxr.resample(samples, own, rate)
