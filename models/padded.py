"""Clips of unequal length in one batch, each computed as if it were alone: a GPU takes as long for one as for many.

Zeros behind the end of a clip would change its result, as batch norms and activations make something else of them. So what lies
behind the end is set to zero again before each convolution over time, and means over time end with the clip.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def forward_padded(network: TaggingNetwork, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, n_mels, T) spectrograms, padded at their end, and the frames (B,) of each -> logits (B, K), embedding (B, C).

    In evaluation mode results are those of each clip alone, but for float32's rounding in means.
    """
    for stage in network.features:
        y = x
        for layer in stage.block if isinstance(stage, InvertedResidual) else [stage]:
            if isinstance(layer, ConcurrentSE):
                y = layer.excite(y, [one.bottleneck(_mean(y, frames)) for one in layer.conc_se_layers])
            else:
                y, frames = _convolved(layer, y, frames)
        x = y + x if isinstance(stage, InvertedResidual) and stage.use_shortcut else y
    embedding = _mean(x, frames)
    if network.arch.head_type == "mlp":
        return network.classifier[2:](embedding), embedding  # behind pooling
    return _mean(network.classifier[:2](x), frames), embedding


def _convolved(layer: ConvNormActivation, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layer's output, and how much of its time axis is each clip's."""
    kernel, stride, dilation = (values[1] for values in (layer[0].kernel_size, layer[0].stride, layer[0].dilation))
    if kernel > 1:
        x = x.masked_fill(~_inside(x, frames), 0.0)
    return layer(x), conv_out_size(frames, kernel, stride, dilation)


def _mean(x: Tensor, frames: Tensor) -> Tensor:
    """(B, C, F, T) -> the mean over frequency and over the clip's own time, (B, C)."""
    return x.masked_fill(~_inside(x, frames), 0.0).sum((2, 3)) / (frames * x.shape[2])[:, None]


def _inside(x: Tensor, frames: Tensor) -> Tensor:
    """Whether a position of (B, C, F, T) is within its clip, (B, 1, 1, T)."""
    return torch.arange(x.shape[3], device=x.device) < frames.view(-1, 1, 1, 1)
