"""`get_model` builds a MobileNetV3, with random weights or with those of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from models.base import TaggingNetwork
from models.building import build_model
from models.config import Arch
from models.network import MobileNetV3
from models.registry import list_models
from models.waveform import WaveformModel

__all__ = ["MobileNetV3", "get_model", "list_models"]


def get_model(
    num_classes: int | None = None,
    pretrained_name: str | None = None,
    width_mult: float | None = None,
    reduced_tail: bool | None = None,
    dilated: bool | None = None,
    strides: Sequence[int] | None = None,
    head_type: str | None = None,
    multihead_attention_heads: int | None = None,
    input_dim_f: int | None = None,
    input_dim_t: int | None = None,
    se_dims: str | None = None,
    se_agg: str | None = None,
    se_r: int | None = None,
    *,
    waveform: bool = False,
) -> TaggingNetwork | WaveformModel:
    """Build a MobileNetV3, or the network of `pretrained_name`, of whatever family, with its weights and whole configuration.

    `pretrained_name` is a released model ("mn10_as", see `list_models`), a bundled one, or the path of one of our checkpoints. None
    stands for the checkpoint's value, else for the default of `models.config.Arch`: 527 classes, width 1.0, head "mlp", 128
    mel bands. `num_classes` may differ from the checkpoint's: the last layer (mlp) or the head (other heads) is then
    re-initialised; 0 removes the head, and the embedding (B, C) takes the place of the logits. Any other argument that contradicts
    the checkpoint is a `UserError`; a file that cannot be downloaded or used raises `AssetError`.

    The network maps spectrograms (B, 1, n_mels, frames) to logits (B, K) and embedding (B, C). With `waveform` its front end is in
    front of it: the result is a `WaveformModel`, which takes waveforms (B, samples) in [-1, 1] at `sample_rate`.
    """
    arguments = {
        "width_mult": width_mult,
        "reduced_tail": reduced_tail,
        "dilated": dilated,
        "strides": strides,
        "head_type": head_type,
        "multihead_attention_heads": multihead_attention_heads,
        "input_dim_f": input_dim_f,
        "input_dim_t": input_dim_t,
        "se_dims": se_dims,
        "se_agg": se_agg,
        "se_r": se_r,
    }
    return build_model(Arch, num_classes, pretrained_name, arguments, waveform)
