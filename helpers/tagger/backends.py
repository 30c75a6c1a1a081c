"""What computes: PyTorch or ONNX Runtime, behind one interface. Each is imported only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from models.config import POOLINGS
from models.errors import UserError

if TYPE_CHECKING:
    import torch

BACKENDS = ("torch", "onnx")
LAYERS = "embedding"  # the network's own


Results = list[tuple[np.ndarray, np.ndarray]]  # scores (K,) in [0, 1] and embedding (C,) of each clip, float32


class Backend(Protocol):
    """A backend: waveforms (samples,) float32 of any lengths -> scores and embedding of each.

    Where `hop_size` is known, front end and network can also be called apart: `spectrograms`, (1, n_mels, frames) of each waveform,
    then `from_spectrograms`. Where `step_seconds` is known, `frames` are scores (T, K) and embeddings (T, C) of the frames of each.
    """

    sample_rate: int
    labels: tuple[str, ...] | None
    num_classes: int
    embedding_size: int
    columns: dict[str, tuple[int, int]]  # first column of each layer in the embedding, and the one behind its last
    clip_seconds: float | None  # of the clips that the model was trained with, where it is known
    hop_size: int | None  # samples from one frame of the spectrogram to the next
    min_samples: int  # as in `MelConfig`: a frame depends on min_samples - 2 samples on each side at most
    has_parts: bool  # whether front end and network are loaded apart already
    step_seconds: float | None  # from one of `frames` to the next; None: the model scores whole clips only

    def __call__(self, waveforms: Sequence[np.ndarray]) -> Results: ...

    def spectrograms(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]: ...

    def from_spectrograms(self, spectrograms: Sequence[np.ndarray]) -> Results: ...

    def frames(self, waveforms: Sequence[np.ndarray]) -> Results: ...


def load_backend(
    model: str | os.PathLike[str] | Sequence[str],
    device: torch.device | str | None,
    backend: str,
    layers: str | Sequence[str],
    pooling: str,
) -> Backend:
    """Load a model into a backend; arguments and errors are those of `AudioTagger`."""
    if backend == "torch":
        names = [model] if isinstance(model, (str, os.PathLike)) else model
        if exported := [name for name in names if os.fspath(name).endswith(".onnx")]:
            raise UserError(f"{exported[0]} is an exported model; use the onnx backend")
        from helpers.tagger.torch_backend import TorchBackend

        return TorchBackend(model, device, layers, pooling)
    if backend not in BACKENDS:
        raise UserError(f"unknown backend {backend!r}; allowed: {', '.join(BACKENDS)}")
    if not isinstance(model, (str, os.PathLike)):
        raise UserError(f"an ensemble needs the torch backend; {backend} runs one model")
    if device is not None and str(device) != "cpu":
        raise UserError(f"the {backend} backend computes on the CPU, not on {device}; leave the device out or use torch")
    if (layers, pooling) != (LAYERS, POOLINGS[0]):
        raise UserError(f"the {backend} backend has the network's own embedding only, not {layers} ({pooling}); use torch")
    from helpers.export.runtime import load_backend as load_onnx_backend

    return load_onnx_backend(model)
