"""The one thing every data set yields, and the same with a teacher's opinion."""

from typing import NamedTuple

import torch


class Clip(NamedTuple):
    """One recording, its labels, and how to find it again.

    torch's default_collate batches clips into one Clip: waveform (B, samples), target (B, K), name a tuple of B
    strings, index (B,) int64.
    """

    waveform: torch.Tensor  # (samples,) float32, mono, [-1, 1]
    target: torch.Tensor  # (K,) float32 in [0, 1]: multi-hot, or soft after mixing
    name: str  # key of the clip in other tables, such as teacher logits
    index: int  # position in the data set that yielded it


class TaughtClip(NamedTuple):
    """A clip and what a teacher says of it; the first four fields are those of `Clip`."""

    waveform: torch.Tensor
    target: torch.Tensor
    name: str
    index: int
    teacher: torch.Tensor  # (K,) float32 in [0, 1], the teacher's probabilities; zeros where it says nothing
    teacher_weight: torch.Tensor  # () float32: 1, or 0 where the teacher says nothing; between them after mixing
