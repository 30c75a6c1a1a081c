"""Clips of full length, in batches of one length each, so that a clip's scores do not depend on its batch."""

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.audio import crop_or_pad
from datasets.clip import Clip, ClipDataset
from models.errors import UserError

ROUND_SECONDS = 0.01  # one hop of the usual front end, which so sees as many frames as without rounding


class FullLengthClips(Dataset[Clip]):
    """A data set's recordings at their own length, rounded up to a multiple of `round_seconds` by zeros at the end.

    The header of its recording alone determines a clip's length, and a batch of `batches` holds clips of one length: a network
    gives each clip the scores that it gives the clip alone. Only the rounding changes them, by hundredths at most; padding to the
    longest clip, as in batches of mixed lengths, would change them by tenths.
    """

    def __init__(self, clips: ClipDataset, round_seconds: float = ROUND_SECONDS) -> None:
        """`clips` must keep each clip's own length (`clip_seconds=None`). All headers are read, which is a pass over the files."""
        if clips.clip_seconds is not None:
            raise UserError(f"clips are cut to {clips.clip_seconds} s; for full length, open the data set with clip_seconds=None")
        multiple = round(round_seconds * clips.sample_rate)
        if multiple < 1:
            raise UserError(f"round_seconds is {round_seconds}; it must be at least one sample")
        self.clips = clips
        self.lengths = -(-clips.lengths() // multiple) * multiple  # (N,) samples

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        waveform = crop_or_pad(clip.waveform.numpy(), int(self.lengths[clip.index]))
        return clip._replace(waveform=torch.from_numpy(waveform))

    def batches(self, batch_size: int) -> list[list[int]]:
        """Indices of all clips, in batches of one length each, the longest first: a `batch_sampler` for a DataLoader.

        Each of n ranks takes every n-th of them.
        """
        order = np.argsort(-self.lengths, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.lengths[order])) + 1)
        return [group[start : start + batch_size].tolist() for group in groups for start in range(0, len(group), batch_size)]
