"""What training minimises and what evaluation measures, for clips of several classes and for clips of exactly one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from helpers.metrics import accuracy, accuracy_by, tagging_metrics
from helpers.training.evaluation import Predictions


def bce_per_clip(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy averaged over the classes: logits (B, K), target (B, K) in [0, 1] -> (B,) float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(1)


def cross_entropy_per_clip(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of classes that exclude each other: logits (B, K), target (B, K) that sums to 1 -> (B,) float32.

    The share `label_smoothing` of the target is spread evenly over all classes (Szegedy et al., CVPR 2016).
    """
    return functional.cross_entropy(logits.float(), target, reduction="none", label_smoothing=label_smoothing)


@dataclass(frozen=True)
class Objective:
    """A loss (logits (B, K), target (B, K)) -> (B,), the scores of predictions, and the score by which the best epoch is chosen."""

    loss_per_clip: Callable[[Tensor, Tensor], Tensor]
    scores: Callable[[Predictions], dict[str, float]]
    selection: str
    single_label: bool  # every clip has exactly one class


def tagging_scores(predictions: Predictions) -> dict[str, float]:
    """mAP, mean ROC-AUC, d' and loss of clips that have any number of classes."""
    scores = tagging_metrics(predictions.targets, predictions.logits)
    loss = _mean_loss(bce_per_clip, predictions)
    return {"mAP": scores.mAP, "ROC_AUC": scores.mean_roc_auc, "d_prime": scores.d_prime, "val_loss": loss}


def classification_scores(predictions: Predictions) -> dict[str, float]:
    """Accuracy, its mean over the classes that have clips, and loss, of clips that have exactly one class."""
    targets, logits = predictions.targets, predictions.logits
    by_class = accuracy_by(targets.argmax(1).astype(str), targets, logits)
    return {
        "accuracy": accuracy(targets, logits),
        "accuracy_class_mean": fmean(by_class.values()),
        "val_loss": _mean_loss(cross_entropy_per_clip, predictions),
    }


def _mean_loss(loss_per_clip: Callable[[Tensor, Tensor], Tensor], predictions: Predictions) -> float:
    return loss_per_clip(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.targets)).mean().item()


TAGGING = Objective(bce_per_clip, tagging_scores, "mAP", single_label=False)
CLASSIFICATION = Objective(cross_entropy_per_clip, classification_scores, "accuracy", single_label=True)
