"""Clips of unequal length in one batch, each computed as if it were alone: a GPU takes as long for one as for many.

Zeros behind the end of a clip would change its result, as batch norms and activations make something else of them. So what lies
behind the end is set to zero again before each convolution over time, and means over time end with the clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helpers.devices import upload
from models.base import TaggingNetwork
from models.blocks import ConcurrentSE, ConvNormActivation, InvertedResidual, conv_out_size
from models.network import MobileNetV3


def takes_padding(network: nn.Module) -> bool:
    """Whether `forward_padded` knows a network: all of it that is over time must be convolutions and means."""
    arch = network.arch
    return (
        type(network) is MobileNetV3 and arch.se_dims in ("c", "none") and arch.head_type in ("mlp", "fully_convolutional")
        and arch.num_classes > 0
    )  # fmt: skip


def groups_of_similar_length(lengths: Sequence[int]) -> list[list[int]]:
    """Return groups of indices, in each of which no length is more than twice another."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[index] <= 2 * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def forward_padded(network: TaggingNetwork, x: Tensor, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(B, 1, n_mels, T) spectrograms, padded at their end, and the frames of each -> logits (B, K), embedding (B, C).

    In evaluation mode results are those of each clip alone, but for float32's rounding in means.
    """
    ends = _Ends(frames, x.device)
    for stage in network.features:
        y = x
        for layer in stage.block if isinstance(stage, InvertedResidual) else [stage]:
            if isinstance(layer, ConcurrentSE):
                y = layer.excite(y, [one.bottleneck(ends.mean(y)) for one in layer.conc_se_layers])
            else:
                y = ends.convolved(layer, y)
        x = y + x if isinstance(stage, InvertedResidual) and stage.use_shortcut else y
    embedding = ends.mean(x)
    if network.arch.head_type == "mlp":
        return network.classifier[2:](embedding), embedding  # behind pooling
    return ends.mean(network.classifier[:2](x)), embedding


class _Ends:
    """Where each clip of a batch ends, on the time axis of the layer that is under way; counted on the CPU."""

    def __init__(self, frames: Sequence[int], device: torch.device) -> None:
        self.frames = list(frames)
        self.device = device
        self._behind: dict[int, tuple[Tensor, Tensor]] = {}  # by the length of the time axis

    def convolved(self, layer: ConvNormActivation, x: Tensor) -> Tensor:
        kernel, stride, dilation = (values[1] for values in (layer[0].kernel_size, layer[0].stride, layer[0].dilation))
        if kernel > 1:
            x = x.masked_fill(self._masks(x)[0], 0.0)
        self.frames = [conv_out_size(count, kernel, stride, dilation) for count in self.frames]
        return layer(x)

    def mean(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> the mean over frequency and over the clip's own time, (B, C)."""
        behind, frames = self._masks(x)
        return x.masked_fill(behind, 0.0).sum((2, 3)) / (frames * x.shape[2])

    def _masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether a position of (B, C, F, T) is behind the end, (B, 1, 1, T), and the frames before it, (B, 1)."""
        length = x.shape[3]
        if length not in self._behind:
            frames = upload(torch.tensor(self.frames)[:, None], self.device)
            behind = torch.arange(length, device=self.device) >= frames
            self._behind[length] = behind[:, None, None], frames
        return self._behind[length]
