"""Models in PyTorch for the tagger: waveforms in; scores and embeddings out, as numpy arrays."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from helpers.export.checks import check_results, check_waveforms
from models import checkpoints
from models.embeddings import EmbeddingConfig, EmbeddingModel
from models.ensemble import EnsembleModel
from models.errors import UserError


class TorchBackend:
    """A model or an ensemble with its front end on its device; attributes and call are those of `OnnxBackend`."""

    def __init__(
        self,
        names: str | os.PathLike[str] | Sequence[str],
        device: torch.device | str | None = None,
        layers: str | Sequence[str] = "embedding",
        pooling: str = "mean",
    ) -> None:
        """`names`: a released or bundled model, a checkpoint, or several of them for an ensemble; errors as `checkpoints.load`.

        `device` None is a GPU when there is one, else the CPU. `layers` and `pooling` are those of `EmbeddingConfig`; an ensemble's
        embedding has those of its members side by side.
        """
        is_single = isinstance(names, (str, os.PathLike))
        config = EmbeddingConfig(layers, pooling)
        members = [EmbeddingModel(checkpoints.load_model(name), config) for name in ([names] if is_single else names)]
        self.model: EmbeddingModel | EnsembleModel = members[0] if is_single else EnsembleModel(members)
        self.columns: dict[str, tuple[int, int]] = {}
        for number, member in enumerate(members):
            start = sum(other.embedding_size for other in members[:number])
            prefix = "" if is_single else f"{number}:"
            self.columns |= {f"{prefix}{layer}": (start + s.start, start + s.stop) for layer, s in member.columns.items()}
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.model.eval().to(torch.device(device))
        except (RuntimeError, AssertionError, TypeError) as error:  # the second where torch was built without CUDA
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"device {str(device)!r:.100} cannot be used: {reason}") from error
        self.sample_rate = self.model.sample_rate
        self.num_classes = self.model.num_classes
        self.embedding_size = self.model.embedding_size
        self.labels = self.model.labels
        self.clip_seconds = self.model.clip_seconds
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the model on the CPU, as the process that reads it may have no GPU."""
        model = self.model if self.device.type == "cpu" else copy.deepcopy(self.model).cpu()
        return {**vars(self), "model": model, "_device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = state.pop("_device")
        vars(self).update(state, _process=os.getpid())
        self.model.to(device if device.type != "cuda" or torch.cuda.is_available() else "cpu")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute scores (K,) in [0, 1] and embedding (C,), float32, of each waveform (samples,) float32 in [-1, 1].

        Waveforms of equal length are computed together. Errors are those of `OnnxBackend`.
        """
        check_waveforms(waveforms)
        if os.getpid() != self._process:  # after a fork: OpenMP's threads are gone, and waiting for them would never end
            torch.set_num_threads(1)
            self._process = os.getpid()
        results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for length in {len(waveform) for waveform in waveforms}:
            group = [i for i, waveform in enumerate(waveforms) if len(waveform) == length]
            batch = torch.from_numpy(np.stack([waveforms[i] for i in group]))
            logits, embeddings = self.model(batch.to(self.model.device))
            scores = self.model.scores(logits.float()).cpu().numpy()
            results |= zip(group, zip(scores, embeddings.float().cpu().numpy(), strict=True), strict=True)
        ordered = [results[i] for i in range(len(waveforms))]
        check_results(ordered, "the model")
        return ordered
