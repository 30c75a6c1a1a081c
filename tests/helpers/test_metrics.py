import math

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from helpers.metrics import TaggingMetrics, accuracy, tagging_metrics, top_k_accuracy


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
    assert metrics.mAP == pytest.approx(metrics.average_precision.mean()) and metrics.clips == 200


def with_areas(*areas: float) -> TaggingMetrics:
    return TaggingMetrics(np.ones(len(areas), int), np.ones(len(areas)), np.array(areas), clips=10)


def test_d_prime_is_the_distance_of_two_normal_distributions_with_the_mean_area() -> None:
    negatives, positives = np.random.default_rng(0).standard_normal((2, 100_000)) + [[0.0], [1.5]]
    targets = np.repeat([[0.0], [1.0]], 100_000, axis=0)
    assert tagging_metrics(targets, np.concatenate([negatives, positives])[:, None]).d_prime == pytest.approx(1.5, abs=0.02)
    assert with_areas(0.4, 0.6).d_prime == pytest.approx(0, abs=1e-12)
    assert with_areas(0.9, 0.8, math.nan).d_prime == pytest.approx(with_areas(0.85).d_prime)
    assert with_areas(0.15).d_prime == pytest.approx(-with_areas(0.85).d_prime)


def test_d_prime_at_the_ends() -> None:
    assert with_areas(1.0, 1.0).d_prime == math.inf and with_areas(0.0).d_prime == -math.inf
    assert math.isnan(with_areas(math.nan).d_prime)


def test_mean_d_prime_averages_the_distances_of_the_classes() -> None:
    single = [with_areas(area).d_prime for area in (0.9, 0.6)]
    assert with_areas(0.9, math.nan, 0.6).mean_d_prime == pytest.approx(sum(single) / 2)
    assert with_areas(0.9, 1.0).mean_d_prime == math.inf
    assert math.isnan(with_areas(0.0, 1.0).mean_d_prime)


def test_classes_without_positives_are_left_out_and_counted() -> None:
    targets = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    metrics = tagging_metrics(targets, np.array([[2.0, 9.0, 1.0], [1.0, 9.0, 0.0]]))
    assert metrics.mAP == 1.0 and metrics.unscored_classes == 1
    assert metrics.mean_roc_auc == 1.0 and np.isnan(metrics.roc_auc[2])  # no negatives: no ROC curve


def test_bad_input() -> None:
    with pytest.raises(ValueError):
        tagging_metrics(np.ones((2, 1)), np.array([[np.nan], [0.0]]))
    with pytest.raises(ValueError):
        tagging_metrics(np.ones((2, 1)), np.ones((2, 2)))


def test_top_k_accuracy() -> None:
    rng = np.random.default_rng(0)
    targets, scores = np.eye(7)[rng.integers(7, size=300)], rng.standard_normal((300, 7))
    for k in (1, 2, 5):
        expected = top_k_accuracy_score(targets.argmax(1), scores, k=k, labels=range(7))
        assert top_k_accuracy(targets, scores, k) == pytest.approx(expected)
    assert top_k_accuracy(targets, scores, 1) == accuracy(targets, scores)
    assert top_k_accuracy(targets, scores, 9) == 1.0  # fewer classes than places
    assert top_k_accuracy(np.eye(7), np.zeros((7, 7)), 3) == pytest.approx(3 / 7)  # equal scores are no hit for all
    with pytest.raises(ValueError):
        top_k_accuracy(targets, scores * np.nan, 5)
