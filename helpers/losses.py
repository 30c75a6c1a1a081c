"""Losses for each clip, so that mixing, masking and weighting stay outside of them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def bce_per_clip(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy averaged over the classes: logits (B, K), target (B, K) in [0, 1] -> (B,) float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(1)


def cross_entropy_per_clip(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of classes that exclude each other: logits (B, K), target (B, K) that sums to 1 -> (B,) float32.

    The share `label_smoothing` of the target is spread evenly over all classes (Szegedy et al., CVPR 2016).
    """
    return functional.cross_entropy(logits.float(), target, reduction="none", label_smoothing=label_smoothing)
