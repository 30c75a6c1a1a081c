"""Receptive field of a network: the part of the spectrogram that one position of its last feature map sees.

Analytic: a convolution of kernel k and dilation d sees (k - 1) * d + 1 positions of its input, which lie as far apart as the
strides before it multiply to (Araujo et al., Distill, 2019). Shortcuts see less, and squeeze-and-excitation, whose means see
everything, is left out, as in the published figures: 595 frames for strides 2 2 2 2, 467 for 2 2 2 1, 291 for 2 2 1 1, and as many
mel bands. So is the context of dynamic blocks.

Effective (Luo et al., NeurIPS 2016): how much each position of the spectrogram matters, by the gradient of the middle of the last
feature map with respect to the spectrogram, with the gates of squeeze-and-excitation, and the contexts of dynamic
blocks, held at their values; the mean of its
magnitude over recordings.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helpers.costs.macs import meta_network
from models.base import TaggingNetwork
from models.blocks import SqueezeExcitation
from models.config import Architecture
from models.dynamic_blocks import ContextGenerator, DynamicConv

SHARE = 0.95  # of the gradient's magnitude that an effective receptive field holds


@dataclass(frozen=True)
class FieldRow:
    """What a position behind the named convolution sees, and how far apart neighbours lie: (mel bands, frames)."""

    name: str
    size: tuple[int, int]
    step: tuple[int, int]


@dataclass(frozen=True)
class FieldReport:
    """Rows in the order of the convolutions; the last one is the network's."""

    rows: tuple[FieldRow, ...]

    @property
    def bands(self) -> int:
        return self.rows[-1].size[0]

    @property
    def frames(self) -> int:
        return self.rows[-1].size[1]


@dataclass(frozen=True)
class EffectiveField:
    """Mean magnitude of the gradient (n_mels, frames) of one position of the last feature map, which lies at frame `middle`."""

    gradient: Tensor
    middle: int

    @property
    def profile(self) -> Tensor:
        """The share of each frame, (frames,), summed over bands; the shares add up to 1."""
        over_time = self.gradient.sum(0)
        return over_time / over_time.sum()

    @property
    def span(self) -> tuple[int, int]:
        """First and last frame of what is left when 2.5 % of the magnitude are taken off at each end."""
        ends = torch.tensor([(1 - SHARE) / 2, (1 + SHARE) / 2], dtype=self.gradient.dtype)
        first, last = torch.searchsorted(self.profile.cumsum(0), ends).tolist()
        return first, last

    @property
    def frames(self) -> int:
        return self.span[1] - self.span[0] + 1


def receptive_field(network: TaggingNetwork | Architecture) -> FieldReport:
    """Return the analytic receptive field, a row for each convolution in front of the head."""
    if isinstance(network, Architecture):
        network = meta_network(network)
    rows = []
    size, step = [1, 1], [1, 1]
    for name, layer in network.features.named_modules(prefix="features"):  # a chain, but for shortcuts, gates and contexts
        if isinstance(layer, (nn.Conv2d, DynamicConv)) and ".context_gen." not in name:
            for axis in range(2):
                size[axis] += (layer.kernel_size[axis] - 1) * layer.dilation[axis] * step[axis]
                step[axis] *= layer.stride[axis]
            rows.append(FieldRow(name, tuple(size), tuple(step)))
    return FieldReport(tuple(rows))


def effective_receptive_field(network: TaggingNetwork, spectrograms: Tensor) -> EffectiveField:
    """Return the effective receptive field of `network`, in evaluation mode, over spectrograms (B, 1, n_mels, frames).

    The gradient is that of the sum over channels in the middle of the last feature map. Clips should have more frames than the
    analytic receptive field.
    """
    step = receptive_field(network).rows[-1].step[1]
    total = torch.zeros(spectrograms.shape[2:], dtype=spectrograms.dtype)
    with ExitStack() as hooks, torch.enable_grad():
        for layer in network.modules():
            gate = {SqueezeExcitation: "fc1", ContextGenerator: "joint_conv"}.get(type(layer))  # lets no gradient through its means
            if gate:
                hooks.enter_context(getattr(layer, gate).register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(),)))
        for spectrogram in spectrograms.split(1):
            x = spectrogram.clone().requires_grad_()
            features = network.features(x)  # (1, C, F, T)
            middle = features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum()
            total += torch.autograd.grad(middle, x)[0][0, 0].abs()
    return EffectiveField(total / len(spectrograms), features.shape[3] // 2 * step)
