"""Recording in, labelled scores out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets import audio
from datasets.labels import audioset_labels
from models import checkpoints
from models.ensemble import EnsembleModel, get_ensemble_model
from models.waveform import WaveformModel


@dataclass(frozen=True)
class Tag:
    """One event and its score in [0, 1]: sigmoid of the logit, or softmax where a recording has exactly one class."""

    label: str
    score: float


class AudioTagger:
    """A model with its front end, its labels and its device, ready for recordings of any rate, length and channel count."""

    def __init__(self, names: str | os.PathLike[str] | Sequence[str], device: torch.device | str = "cpu") -> None:
        """`names`: a released or bundled model, a checkpoint, or several of them for an ensemble; errors as `checkpoints.load`."""
        self.model: WaveformModel | EnsembleModel
        if isinstance(names, (str, os.PathLike)):
            self.model = WaveformModel(checkpoints.load_model(names))
        else:
            self.model = get_ensemble_model(names)
        self.model.eval().to(device)
        self.labels = self.model.labels or _default_labels(self.model.num_classes)

    @torch.inference_mode()
    def tag(self, source: str | Path | bytes, top_k: int = 10) -> list[Tag]:
        """Return the `top_k` likeliest events of a whole recording, likeliest first.

        `source` is the path or the content of a wav, flac, ogg or mp3 file. Raises `FileNotFoundError` and `AudioError`.
        """
        waveform = torch.from_numpy(audio.load(source, self.model.sample_rate)).to(self.model.device)
        logits, _ = self.model(waveform[None])
        scores = self.model.scores(logits[0].float())
        best = scores.topk(min(top_k, len(scores)))
        return [Tag(self.labels[k], score) for score, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def _default_labels(num_classes: int) -> tuple[str, ...]:
    """AudioSet's names for a model without names of its own; other class counts get numbers."""
    labels = audioset_labels()
    return labels if num_classes == len(labels) else tuple(f"class {k}" for k in range(num_classes))
