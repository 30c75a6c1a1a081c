"""A sound as its source gives it, with its labels, and cutting silence from its ends."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 32000  # Hz
FRAME = SAMPLE_RATE // 100  # samples; loudness is measured in frames of 10 ms

Reject = Callable[[str, str], None]  # takes a source and the reason why it is left out


@dataclass(frozen=True)
class LabelledSound:
    """A labelled sound as its source gives it, before it is trimmed and cut."""

    source: str  # path in the package, or name of what was rendered; unique in its package
    labels: tuple[str, ...]
    waveform: np.ndarray  # (samples,) float32 at SAMPLE_RATE
    original_rate: int  # Hz
    kind: str  # recording, joined, rendered, synthetic or generated
    recording: str = ""  # what it shares with other sounds made of the same recording; empty: nothing


def trim_silence(waveform: np.ndarray) -> np.ndarray:
    """Cut silence from both ends but 10 ms; silent is 60 dB below the loudest 10 ms, or -80 dBFS."""
    count = len(waveform) // FRAME
    if count < 2:
        return waveform
    loudness = np.sqrt((waveform[: count * FRAME].reshape(count, FRAME) ** 2).mean(1))
    loud = np.flatnonzero(loudness > max(loudness.max() * 1e-3, 1e-4))
    return waveform[max(0, loud[0] - 1) * FRAME : (loud[-1] + 2) * FRAME] if len(loud) else waveform
