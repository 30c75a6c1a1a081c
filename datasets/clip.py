"""`Clip`, the item of data sets, `DistillationClip` and `FrameClip`, with more targets, and the base class of data sets."""

import operator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.audio import crop_or_pad
from models.errors import UserError


class Clip(NamedTuple):
    """One recording, its labels, and how to find it again.

    torch's default_collate batches clips into one Clip: waveform (B, samples), target (B, K), name a tuple of B
    strings, index (B,) int64.
    """

    waveform: torch.Tensor  # (samples,) float32, mono, [-1, 1]
    target: torch.Tensor  # (K,) float32 in [0, 1]: multi-hot, or soft after mixing
    name: str  # key of the clip in other tables, such as teacher logits
    index: int  # position in the data set that yielded it


class DistillationClip(NamedTuple):
    """A clip and its soft target; the first four fields are those of `Clip`."""

    waveform: torch.Tensor
    target: torch.Tensor
    name: str
    index: int
    soft_target: torch.Tensor  # (K,) float32 in [0, 1], the teacher's probabilities; zeros without teacher logits
    soft_target_weight: torch.Tensor  # () float32: 1, or 0 without teacher logits; between them after mixing


class FrameClip(NamedTuple):
    """A clip with targets in time; K classes, T frames.

    Where the times of its sounds are not known, the clip's own labels count. Weights lie between 0 and 1 after mixing.
    """

    waveform: torch.Tensor  # (samples,) float32
    target: torch.Tensor  # (K, T) float32 in [0, 1]; zeros where no times are known
    name: str
    index: int
    target_weight: torch.Tensor  # () float32: 1 where times are known, else 0
    clip_target: torch.Tensor  # (K,) float32 in [0, 1]; it weighs 1 - target_weight
    soft_target: torch.Tensor  # (K, T) float32 in [0, 1], a teacher's probabilities; (0,) where no teacher is stored
    soft_target_weight: torch.Tensor  # () float32: 1, or 0 without a teacher's probabilities


class ClipDataset(Dataset[Clip]):
    """Base class of data sets of `Clip`: the length of waveforms, and indices that count from either end."""

    def __init__(self, *, sample_rate: int = 32000, clip_seconds: float | None = 10.0, random_crop: bool = False) -> None:
        """`clip_seconds` is the length of every waveform, padded with zeros at the end; None keeps each one's own.

        `random_crop` crops longer clips at a position drawn from torch's generator; otherwise they keep their beginning.
        """
        if clip_seconds is not None and round(clip_seconds * sample_rate) < 1:
            raise UserError(f"clip_seconds is {clip_seconds}; it must give at least one sample, or be None")
        if clip_seconds is None and random_crop:
            raise UserError("random_crop needs clip_seconds, which is None; give the length to crop to")
        self.sample_rate = sample_rate
        self.clip_seconds = clip_seconds
        self.random_crop = random_crop

    @property
    def names(self) -> list[str]:
        """Names of all clips by index."""
        raise NotImplementedError

    def targets(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Targets of the clips start to stop - 1, (n, K) uint8 of 0 and 1, without touching the recordings."""
        raise NotImplementedError

    def lengths(self) -> np.ndarray:
        """Samples of each full-length recording at `sample_rate`, (N,) int64, from their headers.

        Upper bounds: resampling rounds, and an mp3's header may announce up to 2304 samples too many.
        """
        raise NotImplementedError

    @property
    def _head_seconds(self) -> float | None:
        """As much of a recording's beginning as is needed; None for all of it."""
        return None if self.random_crop else self.clip_seconds

    def _position(self, index: int) -> int:
        position = operator.index(index)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} is out of range; the data set has {len(self)} clips")
        return position

    def _cut(self, waveform: np.ndarray) -> np.ndarray:
        """Give a recording, (samples,) float32, the length of the data set's clips."""
        if self.clip_seconds is None:
            return waveform
        length = round(self.clip_seconds * self.sample_rate)
        spare = len(waveform) - length
        start = int(torch.randint(spare + 1, ())) if self.random_crop and spare > 0 else 0
        return crop_or_pad(waveform, length, start)
