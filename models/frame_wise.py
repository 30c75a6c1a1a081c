"""The frame-wise MobileNet (Morocutti et al., EUSIPCO 2025): logits for each 40 ms; the family's network and its `get_model`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from models.base import FrameOutput, TaggingNetwork, initialise
from models.blocks import ConvNormActivation, InvertedResidual, large_block_configs
from models.building import build_model
from models.config import FrameWiseArch
from models.in_place import Hardswish
from models.registry import list_models
from models.sequence_models import make_sequence_model, output_size
from models.waveform import WaveformModel

__all__ = ["FrameWiseMobileNet", "get_model", "list_models"]

BACKBONE = re.compile(r"^model\.((frame_mn|model|fmn)\.)?features\.")  # as released files name it
SMALLEST = 1e-7  # of what the attention head computes with and returns

logger = logging.getLogger(__name__)


class FrameWiseMobileNet(TaggingNetwork):
    """MobileNetV3-Large that keeps the time axis, a sequence model, and linear heads for frames (strong) and for clips (weak).

    `forward_frames` gives logits of frames. `forward` gives those of the clip: of the weak head if it is trained
    (`arch.trained_heads`), else the largest of the frames'. Its embedding is the mean of the frames'.
    """

    def _add_layers(self) -> None:
        arch = self.arch
        blocks = [
            replace(block, stride=bands if bands == steps else (bands, steps))
            for block, (bands, steps) in zip(large_block_configs(arch.width_mult, (1, 1, 1, 1)), arch.strides, strict=True)
        ]
        self.stage_channels = [blocks[0].in_channels, *(block.out_channels for block in blocks), 6 * blocks[-1].out_channels]
        stem = ConvNormActivation(1, blocks[0].in_channels, kernel=3, stride=2, activation=Hardswish)
        last = ConvNormActivation(blocks[-1].out_channels, self.stage_channels[-1], activation=Hardswish)
        features = nn.Sequential(stem, *(InvertedResidual(block, {}, arch.se_dims, "max", 4) for block in blocks), last)
        self.model = nn.ModuleDict({"fmn": nn.ModuleDict({"features": features})})  # names in released state dicts
        features.apply(initialise)
        self.seq_model = make_sequence_model(arch, self.stage_channels[-1])
        self._add_heads()

    def _add_heads(self) -> None:
        arch = self.arch
        self.strong_head = nn.Linear(self.embedding_size, arch.num_classes) if arch.num_classes else nn.Identity()
        self.weak_head = nn.Linear(self.embedding_size, arch.num_weak) if arch.num_classes else nn.Identity()
        self._freeze_unused_head()

    def _freeze_unused_head(self) -> None:
        """Let only heads that are used be trained: a distributed training waits for all gradients."""
        uses_both = self.arch.head_type == "attention"
        self.strong_head.requires_grad_(uses_both or self.arch.trained_heads != "weak")
        self.weak_head.requires_grad_(uses_both or self.arch.trained_heads != "strong")

    @property
    def features(self) -> nn.Sequential:
        return self.model["fmn"]["features"]

    @property
    def embedding_size(self) -> int:
        return output_size(self.arch, self.stage_channels[-1])

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one frame of `forward_frames` to the next.

        None where the time axis is not kept (`seq_len`), and where the strong head is of no use (`trained_heads` "weak").
        """
        if self.arch.seq_len is not None or self.arch.trained_heads == "weak":
            return None
        return self.arch.frames_per_step * self.mel.hop_size / self.mel.sample_rate

    @property
    def last_layer(self) -> tuple[str, ...]:
        return "strong_head.", "weak_head."

    def set_trained_heads(self, heads: str) -> None:
        """Say which heads are of use, one of `config.TRAINED_HEADS`; the others are frozen. Checkpoints have it."""
        self.arch = replace(self.arch, trained_heads=heads)
        self._freeze_unused_head()

    def reset_classifier(self, num_classes: int) -> None:
        """Re-initialise both heads for `num_classes` classes without names; 0 removes them."""
        self.arch = self.arch.with_classes(num_classes)
        self.labels, self.single_label = None, False
        weight = self.features[0][0].weight
        self._add_heads()
        self.strong_head.to(weight.device, weight.dtype)
        self.weak_head.to(weight.device, weight.dtype)

    def forward_sequence(self, features: Tensor) -> Tensor:
        """(B, C, F, T') from `forward_features` -> embeddings of T frames (B, T, D); T is T', or `arch.seq_len`."""
        sequence = features.mean(2)  # of a single band, where there are 128 at first
        if self.arch.seq_len is not None:
            sequence = resample(sequence, self.arch.seq_len)
        return self.seq_model(sequence.transpose(1, 2))

    def forward_frames(self, x: Tensor) -> FrameOutput:
        """(B, 1, n_mels, frames) -> logits of frames (B, T, K), of the clip (B, K), and embeddings of frames (B, T, D).

        T is a quarter of the spectrogram's frames, rounded up, or `arch.seq_len`. Without classes the logits are the embeddings.
        """
        embedding = self.forward_sequence(self.forward_features(x))
        logits = self.strong_head(embedding)
        return FrameOutput(logits, self._clip_logits(embedding, logits), embedding)

    def _clip_logits(self, embedding: Tensor, logits: Tensor) -> Tensor:
        """(B, T, D), (B, T, K) -> (B, K)."""
        if self.arch.num_classes == 0:
            return embedding.mean(1)
        if self.arch.head_type == "attention":
            share = self.weak_head(embedding).softmax(-1).clamp(SMALLEST, 1)  # over classes, as published
            return ((logits.sigmoid() * share).sum(1) / share.sum(1)).logit(SMALLEST)
        return logits.amax(1) if self.arch.trained_heads == "strong" else self.weak_head(embedding.mean(1))

    def forward_outputs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.forward_sequence(features)
        needs_frames = self.arch.head_type == "attention" or self.arch.trained_heads == "strong"
        return self._clip_logits(embedding, self.strong_head(embedding) if needs_frames else embedding), embedding.mean(1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, F, T) -> the clip's logits (B, K) or, with `pre_logits`, its embedding (B, D)."""
        return self.forward_sequence(features).mean(1) if pre_logits else self.forward_outputs(features)[0]


def resample(sequence: Tensor, steps: int) -> Tensor:
    """(B, C, T) -> (B, C, steps): means of neighbours where there are more, linear interpolation where there are fewer."""
    if sequence.shape[2] > steps:
        return functional.adaptive_avg_pool1d(sequence, steps)
    return functional.interpolate(sequence, size=steps, mode="linear") if sequence.shape[2] < steps else sequence


def read_released(arch: FrameWiseArch, state: Mapping[str, Any]) -> tuple[FrameWiseArch, dict[str, Any]]:
    """Return what `Architecture.read_released` does: names as in our network, and the hybrid's number of heads as in the file.

    Names begin with "net." (EfficientSED), and those of the backbone with "model.frame_mn." (PretrainedSED) or "model.model.".
    A head that the release did not train may be missing or have other classes: it is a random one then, which is logged.
    """
    tensors = {BACKBONE.sub("model.fmn.features.", str(key).removeprefix("net.")): tensor for key, tensor in state.items()}
    norm = tensors.get("seq_model.1.layers.0.1.rnn_out_norm.gamma")
    if arch.sequence_model == "hybrid" and getattr(norm, "ndim", 0) == 1 and len(norm) and arch.sequence_size % len(norm) == 0:
        arch = replace(arch, sequence_heads=arch.sequence_size // len(norm))
    for head, classes in (("strong", arch.num_classes), ("weak", arch.num_weak)):
        found = tuple(getattr(tensors.get(f"{head}_head.bias"), "shape", ()))
        if found != (classes,) and arch.trained_heads not in (head, "both"):
            fresh = nn.Linear(output_size(arch, 6 * large_block_configs(arch.width_mult, (1, 1, 1, 1))[-1].out_channels), classes)
            tensors |= {f"{head}_head.{name}": tensor for name, tensor in fresh.state_dict().items()}
            logger.info(
                "the file has a %s head of %s instead of %d classes: it is replaced", head, found[0] if found else 0, classes
            )
    return arch, tensors


def get_model(
    num_classes: int | None = None,
    pretrained_name: str | None = None,
    width_mult: float | None = None,
    sequence_model: str | None = None,
    sequence_size: int | None = None,
    sequence_heads: int | None = None,
    head_type: str | None = None,
    weak_classes: int | None = None,
    trained_heads: str | None = None,
    seq_len: int | None = None,
    *,
    waveform: bool = False,
) -> TaggingNetwork | WaveformModel:
    """Build a frame-wise MobileNet, or the network of `pretrained_name` with its weights and whole configuration.

    `pretrained_name` is a released model ("fmn10+tf-256", see `list_models`), a bundled one, or the path of one of our checkpoints.
    None stands for the checkpoint's value, else for the default of `models.config.FrameWiseArch`. With another `num_classes` both
    heads are re-initialised. From a MobileNetV3 ("mn04_distilled"), or where a `sequence_model` is asked for and the checkpoint has
    none ("fmn10_weak"), the network takes the backbone and the front end; sequence model and heads are random. `trained_heads` and
    `seq_len` may differ from the checkpoint's; any other argument that contradicts it is a `UserError`, and a file that cannot be
    downloaded or used raises `AssetError`.

    The network maps spectrograms (B, 1, n_mels, frames) to logits (B, K) and embedding (B, D), those of the clip; its
    `forward_frames` gives those of frames. With `waveform` the result is a `WaveformModel`, which takes waveforms (B, samples).
    """
    arguments = {
        "width_mult": width_mult,
        "sequence_model": sequence_model,
        "sequence_size": sequence_size,
        "sequence_heads": sequence_heads,
        "head_type": head_type,
        "weak_classes": weak_classes,
        "trained_heads": trained_heads,
        "seq_len": seq_len,
    }
    return build_model(FrameWiseArch, num_classes, pretrained_name, arguments, waveform)
