import numpy as np
import pytest

from helpers.metrics import tagging_metrics


def average_precision(target: np.ndarray, score: np.ndarray) -> float:
    """Mean over the positives of the precision at their rank (no ties)."""
    hits = target[np.argsort(-score)]
    ranks = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def area_under_roc(target: np.ndarray, score: np.ndarray) -> float:
    """Share of the pairs of a positive and a negative that are in the right order."""
    return float(np.mean(score[target == 1][:, None] > score[target == 0][None]))


def test_against_the_definitions() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 5)) < [0.02, 0.1, 0.3, 0.5, 0.9]).astype(np.float32)
    targets[0] = 1
    scores = rng.standard_normal((200, 5)) + targets
    metrics = tagging_metrics(targets, scores)
    for k in range(5):
        assert metrics.average_precision[k] == pytest.approx(average_precision(targets[:, k], scores[:, k]))
        assert metrics.roc_auc[k] == pytest.approx(area_under_roc(targets[:, k], scores[:, k]))
    assert metrics.mAP == pytest.approx(metrics.average_precision.mean())


def test_classes_without_positives_are_left_out_and_counted() -> None:
    targets = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    metrics = tagging_metrics(targets, np.array([[2.0, 9.0, 1.0], [1.0, 9.0, 0.0]]))
    assert metrics.mAP == 1.0 and metrics.unscored_classes == 1
    assert metrics.ROC == 1.0 and np.isnan(metrics.roc_auc[2])  # no negatives: no ROC curve


def test_bad_input() -> None:
    with pytest.raises(ValueError):
        tagging_metrics(np.ones((2, 1)), np.array([[np.nan], [0.0]]))
    with pytest.raises(ValueError):
        tagging_metrics(np.ones((2, 1)), np.ones((2, 2)))
