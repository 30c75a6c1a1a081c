"""Mixing of the examples in a batch: mixup (Zhang et al., ICLR 2018) and Freq-MixStyle (Schmid et al., DCASE 2022).

Weights and partners are drawn on the CPU, so that they are the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.devices import upload


@dataclass(frozen=True)
class Mix:
    """Which partner each example was mixed with, and the weight of the example itself, in [0.5, 1]."""

    partner: Tensor  # (B,) indices into the batch
    weight: Tensor  # (B,) float32

    def apply(self, x: Tensor) -> Tensor:
        """Mix examples (B, ...)."""
        weight = self.weight.view(-1, *(1 for _ in x.shape[1:]))
        return x * weight + x[self.partner] * (1.0 - weight)


def mixup(x: Tensor, alpha: float) -> tuple[Tensor, Mix | None]:
    """Mix each example of x (B, ...) with another; `alpha` 0 turns mixing off and returns x and None.

    The weight is max(l, 1 - l) with l from Beta(alpha, alpha), so that the example itself dominates.
    """
    if alpha == 0:
        return x, None
    drawn = torch.distributions.Beta(alpha, alpha).sample((len(x),))
    weight = upload(torch.maximum(drawn, 1.0 - drawn), x.device)
    mix = Mix(upload(torch.randperm(len(x)), x.device), weight)
    return mix.apply(x), mix


@dataclass(frozen=True)
class Style:
    """Whose statistics each spectrogram got, and the share of its own that it kept, in [0, 1]."""

    partner: Tensor  # (B,) indices into the batch
    share: Tensor  # (B, 1, 1) float32

    def apply(self, x: Tensor) -> Tensor:
        """Change the mean and standard deviation over time of each band of spectrograms (B, F, T)."""
        mean, deviation = x.mean(2, keepdim=True), (x.var(2, keepdim=True) + 1e-6).sqrt()
        mixed_mean = self.share * mean + (1.0 - self.share) * mean[self.partner]
        mixed_deviation = self.share * deviation + (1.0 - self.share) * deviation[self.partner]
        return (x - mean) / deviation * mixed_deviation + mixed_mean


def freq_mixstyle(x: Tensor, probability: float, alpha: float) -> tuple[Tensor, Style | None]:
    """With `probability`, give spectrograms x (B, F, T) statistics between their own and those of another one.

    Else return x and None. MixStyle (Zhou et al., ICLR 2021) with the statistics of frequency bands, which differ between
    devices; the share of the own statistics is drawn from Beta(alpha, alpha) for each example.
    """
    if probability == 0 or torch.rand(()) >= probability:
        return x, None
    share = upload(torch.distributions.Beta(alpha, alpha).sample((len(x), 1, 1)), x.device)
    style = Style(upload(torch.randperm(len(x)), x.device), share)
    return style.apply(x), style


def mixed_loss(loss_per_clip: Callable[..., Tensor], logits: Tensor, mix: Mix | None, *targets: Tensor) -> Tensor:
    """Return w * loss(y) + (1 - w) * loss(y of the partner), (B,); without a mix the plain loss of each clip.

    `targets` are what `loss_per_clip` takes after the logits, each with the batch as its first axis. For losses that are affine
    in their target, such as cross entropy and its binary form, this is the loss on mixed targets.
    """
    loss = loss_per_clip(logits, *targets)
    if mix is None:
        return loss
    partners = loss_per_clip(logits, *(target[mix.partner] for target in targets))
    return mix.weight * loss + (1.0 - mix.weight) * partners
