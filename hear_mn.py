"""The HEAR 2021 interface (hearbenchmark.com/hear-api.html) for every model and every choice of layers.

hear-validator hear_mn -m mn10_as
python -m heareval.embeddings.runner hear_mn --model-options '{"weights": "mn10_as", "layers": "block11+mel"}'
python -m heareval.embeddings.runner hear_mn --model resources/mn04_distilled.pt --model-options '{"pooling": "both"}'

A model has `sample_rate` in Hz, `scene_embedding_size` and `timestamp_embedding_size`. Waveforms are (n_sounds, n_samples) in
[-1, 1] at that rate. To import this module from elsewhere, add its folder to PYTHONPATH.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from helpers.probing.timestamps import timestamp_embeddings
from models import checkpoints
from models.embeddings import PUBLISHED_BEST, EmbeddingConfig, EmbeddingModel
from models.errors import UserError


class HearModel(EmbeddingModel):
    """An `EmbeddingModel` with the names of the interface."""

    @property
    def scene_embedding_size(self) -> int:
        return self.embedding_size

    timestamp_embedding_size = scene_embedding_size


def load_model(
    weights: str | os.PathLike[str] = "mn10_as", layers: str | Sequence[str] | None = None, pooling: str = "mean"
) -> HearModel:
    """Load a model in evaluation mode.

    `weights` is a released or bundled name or the path of a checkpoint (empty: the default). `layers` and `pooling` are those of
    `models.embeddings.EmbeddingConfig`; None is the published best choice, of a frame-wise model the embedding. Raises `UserError`
    for an unknown name or layer, `FileNotFoundError` and `AssetError`.
    """
    network = checkpoints.load_model(weights or "mn10_as")
    if layers is None:
        layers = PUBLISHED_BEST if network.step_seconds is None else "embedding"
    return HearModel(network, EmbeddingConfig(layers, pooling)).eval()


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """(n_sounds, n_samples) -> (n_sounds, scene_embedding_size) float32: the mean over windows of 10 s, one every 2.5 s."""
    return _checked(model).scenes(audio)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """(n_sounds, n_samples) -> (n_sounds, T, timestamp_embedding_size) float32 and (n_sounds, T) milliseconds.

    One embedding every 50 ms, from 0 to the end of the sound, of the 160 ms around that time. Of a frame-wise model, those of its
    frames, every 40 ms; their layers are "embedding".
    """
    return timestamp_embeddings(_checked(model), audio)


def _checked(model: object) -> HearModel:
    if not isinstance(model, HearModel):
        raise UserError(f"model is a {type(model).__name__}; pass what load_model returns")
    return model
