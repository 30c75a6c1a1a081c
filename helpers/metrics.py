"""Metrics of tagging (average precision and ROC-AUC, by class and on average) and of classification (accuracy)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from models.errors import UserError


@dataclass(frozen=True)
class TaggingMetrics:
    """Metrics of each class (K,), NaN where they are undefined, and their means over the other classes."""

    positives: np.ndarray  # clips that hold the class, (K,) int
    average_precision: np.ndarray
    roc_auc: np.ndarray
    clips: int  # N, with and without the class

    @property
    def mAP(self) -> float:  # noqa: N802 (the field's name)
        """Mean average precision over the classes with a positive clip."""
        return _mean_of_defined(self.average_precision)

    @property
    def mean_roc_auc(self) -> float:
        """Mean area under the ROC curve over the classes with both positive and negative clips."""
        return _mean_of_defined(self.roc_auc)

    @property
    def d_prime(self) -> float:
        """Separation of positive from negative clips, sqrt(2) * inverse normal CDF of `mean_roc_auc`.

        Infinite for 0 and 1, NaN for NaN. Taken from the mean area, not averaged over classes, as in Hershey et al., CNN
        Architectures for Large-Scale Audio Classification, ICASSP 2017.
        """
        return _d_prime(self.mean_roc_auc)

    @property
    def mean_d_prime(self) -> float:
        """Mean of the classes' own d', as the HEAR benchmark averages; infinite as soon as one class is separated without error."""
        with np.errstate(invalid="ignore"):  # infinities of both signs have no mean: NaN
            return _mean_of_defined(np.array([_d_prime(area) for area in self.roc_auc]))

    @property
    def unscored_classes(self) -> int:
        """Number of classes without a positive clip, left out of the mean average precision."""
        return int((self.positives == 0).sum())


def tagging_metrics(targets: np.ndarray, scores: np.ndarray) -> TaggingMetrics:
    """Compare multi-hot targets (N, K) with scores (N, K), in which only the order within a class counts.

    Raises UserError for scores that are not finite.
    """
    _check(targets, scores)
    num_classes = targets.shape[1]
    positives = targets.sum(0).astype(int)
    average_precision, roc_auc = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    by_class = np.ascontiguousarray(targets.T), np.ascontiguousarray(scores.T)  # a fifth faster than columns are
    for k, (target, score) in enumerate(zip(*by_class, strict=True)):
        if positives[k]:
            average_precision[k] = average_precision_score(target, score)
            if positives[k] < len(target):
                roc_auc[k] = roc_auc_score(target, score)
    return TaggingMetrics(positives, average_precision, roc_auc, len(targets))


def accuracy(targets: np.ndarray, scores: np.ndarray) -> float:
    """Share of the clips whose class, the largest of targets (N, K), has the highest of scores (N, K)."""
    return float(_is_right(targets, scores).mean())


def top_k_accuracy(targets: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of the clips whose class, the largest of targets (N, K), is among the `k` that have the highest of scores (N, K)."""
    _check(targets, scores)
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # of equal scores the first, as argmax does
    return float((highest == targets.argmax(1)[:, None]).any(1).mean())


def accuracy_by(groups: Sequence[str], targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Accuracy of each group's clips; `groups` (N,) names the group of each clip."""
    right = _is_right(targets, scores)
    names = np.asarray(groups)
    return {str(name): float(right[names == name].mean()) for name in np.unique(names)}


def _is_right(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    _check(targets, scores)
    return targets.argmax(1) == scores.argmax(1)


def _check(targets: np.ndarray, scores: np.ndarray) -> None:
    if targets.shape != scores.shape or targets.ndim != 2 or not len(targets):
        raise UserError(f"targets and scores must have one shape (N, K), got {targets.shape} and {scores.shape}")
    if not np.isfinite(scores).all():
        raise UserError("the model's scores are not all finite; its weights or the recordings are damaged")


def _d_prime(area: float) -> float:
    if 0 < area < 1:
        return math.sqrt(2) * NormalDist().inv_cdf(area)
    return math.copysign(math.inf, area - 0.5) if area in (0, 1) else math.nan


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
