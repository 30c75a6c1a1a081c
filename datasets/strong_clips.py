"""Clips with targets in time: a data set of clips and the events of each, where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.clip import ClipDataset, FrameClip
from datasets.strong_labels import STEP_SECONDS, LabelledEvent, encode
from models.errors import UserError


class StrongClips(Dataset[FrameClip]):
    """Those of a data set's clips that have events in time or, without times, labels; yields `FrameClip`."""

    def __init__(
        self,
        clips: ClipDataset,
        events: Mapping[int, Sequence[LabelledEvent] | None],
        num_classes: int,
        *,
        frames: int,
        step: float = STEP_SECONDS,
        columns: Mapping[int, int] | None = None,
    ) -> None:
        """`events` are those of the clips that are used, by their index in `clips`, in seconds of the clip; None: without times.

        Targets have T = `frames` of `step` seconds. `columns` maps classes to the columns of the targets of `clips`, which are the
        labels of clips without times; None: they are the same. Classes without a column are 0 in these labels.
        """
        if clips.random_crop:
            raise UserError("clips with events must not be cropped at random, for the events would not move; set random_crop=False")
        if not events:
            raise UserError("no clip has events or labels, so there is nothing to learn from")
        self.clips = clips
        self.indices = list(events)
        self.events = list(events.values())
        self.num_classes, self.frames, self.step = num_classes, frames, step
        self._columns = {k: k for k in range(num_classes)} if columns is None else dict(columns)

    @property
    def names(self) -> list[str]:
        names = self.clips.names
        return [names[index] for index in self.indices]

    @property
    def has_times(self) -> np.ndarray:
        """Whether the times of a clip's sounds are known, (N,) bool."""
        return np.array([events is not None for events in self.events])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> FrameClip:
        clip = self.clips[self.indices[index]]
        events = self.events[index]
        target = torch.from_numpy(encode(events or (), self.num_classes, self.frames, self.step))
        clip_target = target.amax(1)
        if events is None and self._columns:
            own, theirs = map(list, zip(*self._columns.items(), strict=True))
            clip_target[own] = clip.target[theirs]
        has_times = torch.tensor(float(events is not None))
        return FrameClip(clip.waveform, target, clip.name, index, has_times, clip_target, torch.zeros(0), torch.tensor(0.0))
