"""What an exported file loses: its scores of recordings next to those of the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets import audio
from datasets.audio_folders import find_recordings
from models import assets
from models.base import TaggingNetwork
from models.errors import UserError
from models.preprocess import AugmentMelSTFT

RECORDINGS = assets.BUNDLED_DIR / "recordings"
SECONDS = 10.0  # of each recording, at most


@dataclass(frozen=True)
class Difference:
    """How far scores of clips, all in [0, 1], are from others."""

    clips: int
    largest: float
    mean: float
    same_first: float  # the share of clips whose highest score is that of the same class

    @classmethod
    def between(cls, scores: np.ndarray, others: np.ndarray) -> Difference:
        """Compare (clips, classes) with (clips, classes)."""
        apart = np.abs(scores - others)
        same = scores.argmax(1) == others.argmax(1)
        return cls(len(scores), float(apart.max()), float(apart.mean()), float(same.mean()))

    def __str__(self) -> str:
        return (
            f"{self.clips} recordings: scores differ by at most {self.largest:.2g} and by {self.mean:.2g} on average, "
            f"{self.same_first:.0%} of the first tags are equal"
        )


def find(paths: Sequence[Path]) -> list[Path]:
    """Return files and the recordings in folders; `UserError` where there are none, though paths are given."""
    files = find_recordings(paths)
    if gone := [path for path in files if not path.exists()]:
        raise UserError(f"{gone[0]} to compare with not found; give a recording or a folder of them")
    if paths and not files:
        raise UserError(f"no recordings to compare with in {', '.join(map(str, paths))}")
    return files


def compare(
    compute: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    network: TaggingNetwork,
    paths: Sequence[Path],
    *,
    network_only: bool = False,
    samples: int | None = None,
) -> Difference:
    """Compute the first seconds of recordings and folders of them with an exported file and with the network it was made of.

    `compute` returns the file's scores (classes,) and embedding of a waveform (samples,), or of a spectrogram (1, n_mels, frames)
    where `network_only`; `network` is in evaluation mode. With `samples`, clips are cut to that length or padded with zeros. Raises
    `UserError` as `find` and `audio.load`.
    """
    front_end = AugmentMelSTFT.from_config(network.mel).eval()
    found, exact = [], []
    for file in find(paths):
        clip = audio.load(file, network.mel.sample_rate, seconds=SECONDS)
        if samples is not None:
            clip = fit(clip, samples)
        with torch.inference_mode():
            spectrogram = front_end(torch.from_numpy(clip)[None]).unsqueeze(1)
            logits, _ = network(spectrogram)
        exact.append(network.scores(logits)[0].numpy())
        found.append(compute(spectrogram[0].numpy() if network_only else clip)[0])
    return Difference.between(np.stack(found), np.stack(exact))


def fit(clip: np.ndarray, samples: int) -> np.ndarray:
    """Cut a waveform (n,) to (samples,), or pad it with zeros at its end."""
    return np.pad(clip[:samples], (0, max(0, samples - len(clip))))
