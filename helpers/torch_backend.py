"""Models in PyTorch, as the tagger calls them: waveforms in, scores and embeddings out, both numpy arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from models import checkpoints
from models.ensemble import EnsembleModel, get_ensemble_model
from models.waveform import WaveformModel


class TorchBackend:
    """A model or an ensemble with its front end on its device; attributes and call are those of `OnnxBackend`."""

    def __init__(self, names: str | os.PathLike[str] | Sequence[str], device: torch.device | str | None = None) -> None:
        """`names`: a released or bundled model, a checkpoint, or several of them for an ensemble; errors as `checkpoints.load`."""
        self.model: WaveformModel | EnsembleModel
        if isinstance(names, (str, os.PathLike)):
            self.model = WaveformModel(checkpoints.load_model(names))
            networks = [self.model.network]
        else:
            self.model = get_ensemble_model(names)
            networks = [member.network for member in self.model.members]
        try:
            self.model.eval().to(device or "cpu")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from error
        self.sample_rate = self.model.sample_rate
        self.num_classes = self.model.num_classes
        self.embedding_size = sum(network.embedding_size for network in networks)
        self.labels = self.model.labels
        self.clip_seconds = self.model.clip_seconds

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute scores (K,) in [0, 1] and embedding (C,), float32, of each waveform (samples,) float32 in [-1, 1].

        Those of one length are computed together.
        """
        results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for length in {len(waveform) for waveform in waveforms}:
            group = [i for i, waveform in enumerate(waveforms) if len(waveform) == length]
            batch = torch.from_numpy(np.stack([waveforms[i] for i in group]))
            logits, embeddings = self.model(batch.to(self.model.device))
            scores = self.model.scores(logits.float()).cpu().numpy()
            results |= zip(group, zip(scores, embeddings.float().cpu().numpy(), strict=True), strict=True)
        return [results[i] for i in range(len(waveforms))]
