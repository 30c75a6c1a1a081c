"""The data set from which logits of frames are written."""

from __future__ import annotations

import errno
import os

import pytest

from datasets.audio import AudioError
from helpers.distillation.frame_writer import _Waveforms


class BrokenClips:
    """A data set whose clips raise one error each."""

    errors = (AudioError("c0 is damaged"), AudioError("c1 cannot be read"))

    def __getitem__(self, index: int) -> None:
        if index == 1:
            raise self.errors[1] from OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        raise self.errors[index]


def test_recordings_may_fail_but_not_the_machine() -> None:
    waveforms = _Waveforms(BrokenClips())
    assert waveforms[0] is BrokenClips.errors[0]
    with pytest.raises(AudioError, match="c1"):
        waveforms[1]
