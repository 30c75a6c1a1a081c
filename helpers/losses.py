"""Losses for each clip, so that mixing, masking and weighting stay outside of them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def bce_per_clip(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy averaged over the classes: logits (B, K), target (B, K) in [0, 1] -> (B,) float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(1)
