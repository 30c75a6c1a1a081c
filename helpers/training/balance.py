"""Training on classes of unequal size: rare ones are drawn more often, or weigh more in the loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import WeightedRandomSampler

from datasets.balance import class_weights, with_unlabelled

CHOICES = ("none", "sampling", "weights")


def balanced_sampler(targets: np.ndarray) -> WeightedRandomSampler:
    """Draw N clips an epoch, with repeats, each with the sum of the inverse frequencies of its classes; targets (N, K).

    Clips of a single class come from all classes equally often. Those without a class count as one more class.
    """
    targets = with_unlabelled(targets).astype(np.float64)
    weights = targets @ class_weights(targets.sum(0))
    return WeightedRandomSampler(torch.from_numpy(weights), len(targets), replacement=True)


def balanced_loss(targets: np.ndarray, single_label: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss (logits (B, K), target (B, K)) -> (B,) for which the classes of the training targets (N, K) weigh the same in all.

    Cross entropy weighted by the inverse frequency of the class; for several labels, binary cross entropy in which presence and
    absence of a class are weighted so. The mean weight is 1, so that learning rates keep their meaning.
    """
    present = targets.sum(0, dtype=np.float64)  # (K,)
    if single_label:
        weight = cache(_mean_one(present).to)  # copied to a device once
        return lambda logits, target: functional.cross_entropy(
            logits.float(), target, weight=weight(logits.device), reduction="none"
        )
    weights = cache(_mean_one(np.stack([present, len(targets) - present])).to)  # (2, K)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        logits = logits.float()
        of_present, of_absent = weights(logits.device)
        entropy = of_present * target * functional.logsigmoid(logits) + of_absent * (1 - target) * functional.logsigmoid(-logits)
        return -entropy.mean(1)

    return loss


def _mean_one(counts: np.ndarray) -> Tensor:
    """Weights of classes by their counts, along the first axis, whose mean over the counted is 1; float32."""
    weights = class_weights(counts)
    return torch.from_numpy(weights * counts.sum(0) / (weights * counts).sum(0)).float()
