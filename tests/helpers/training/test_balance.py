"""Classes of unequal size: what is drawn, and what weighs how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from datasets.balance import class_weights
from helpers.training.balance import balanced_loss, balanced_sampler
from helpers.training.sampling import TrainingBatches

SINGLE = np.eye(4, dtype=np.uint8)[[0] * 90 + [1] * 8 + [2] * 2]  # no clip of the last class
SEVERAL = np.zeros((100, 3), np.uint8)  # 60 without a class
SEVERAL[:30, 0] = SEVERAL[28:40, 1] = SEVERAL[:1, 2] = 1


def test_class_weights_are_inverse_frequencies() -> None:
    counts = np.array([10, 1, 0])
    weights = class_weights(counts)
    assert weights[1] == 10 * weights[0] > 0 and weights[2] == 0
    np.testing.assert_allclose(class_weights(counts, smoothing=100), [1000 / 110, 1000 / 101, 0])


def drawn(targets: np.ndarray, epochs: int = 100) -> np.ndarray:
    """How often each clip is drawn."""
    batches = TrainingBatches(balanced_sampler(targets), 10, seed=0)
    counts = np.zeros(len(targets))
    for epoch in range(epochs):
        batches.start(epoch)
        indices = [draw.index for batch in batches for draw in batch]
        assert len(indices) == len(targets)
        np.add.at(counts, indices, 1)
    return counts


def test_each_class_is_drawn_equally_often() -> None:
    shares = drawn(SINGLE) @ SINGLE / 10_000
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)


def test_clips_of_several_classes_are_drawn_by_all_of_them_and_those_without_as_one_more() -> None:
    """Weights 1/30, 1/12 and 1 of the classes, 1/60 without one, which sum to 4."""
    counts = drawn(SEVERAL) / 10_000 * 4
    assert counts[0] == pytest.approx(1 / 30 + 1, abs=0.06)
    assert counts[28:30].mean() == pytest.approx(1 / 30 + 1 / 12, abs=0.02)
    assert counts[40:].sum() == pytest.approx(1, abs=0.06)


def test_weighted_cross_entropy_by_hand() -> None:
    """Three classes of 90, 8 and 2 clips weigh 100 / (3 * clips)."""
    loss = balanced_loss(SINGLE, single_label=True)
    logits, target = torch.randn(3, 4), torch.eye(4)[:3]
    expected = torch.tensor([100 / 270, 100 / 24, 100 / 6]) * functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, target), expected)
    halves = loss(logits, target.roll(1, 0) / 2 + target / 2)
    torch.testing.assert_close(halves, (loss(logits, target) + loss(logits, target.roll(1, 0))) / 2)
    assert loss(logits.half(), target).dtype == torch.float32


def test_weighted_binary_cross_entropy_by_hand() -> None:
    """Presence of the first class weighs 100 / (2 * 30), its absence 100 / (2 * 70)."""
    loss = balanced_loss(SEVERAL, single_label=False)
    logits, target = torch.randn(5, 3), torch.from_numpy(SEVERAL[[0, 1, 28, 35, 99]]).float()
    present = torch.tensor([100 / 60, 100 / 24, 100 / 2])
    absent = torch.tensor([100 / 140, 100 / 176, 100 / 198])
    weights = target * present + (1 - target) * absent
    expected = weights * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, target), expected.mean(1))


@pytest.mark.parametrize(("targets", "single_label"), [(SINGLE, True), (SEVERAL, False)])
def test_the_mean_weight_of_training_clips_is_one(targets: np.ndarray, single_label: bool) -> None:
    """Without knowledge, the loss is that without weights."""
    loss = balanced_loss(targets, single_label)(torch.zeros(targets.shape), torch.from_numpy(targets).float())
    assert loss.mean().item() == pytest.approx(np.log(targets.shape[1] if single_label else 2), rel=1e-5)


def test_a_class_that_is_always_or_never_there_has_a_finite_loss() -> None:
    targets = np.array([[1, 0], [1, 0]], np.uint8)
    loss = balanced_loss(targets, single_label=False)(torch.zeros(2, 2), torch.from_numpy(targets).float())
    assert loss.mean().item() == pytest.approx(np.log(2))
