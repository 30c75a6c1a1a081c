"""Drawing of folds; that of validation clips is tested with the folders it is drawn for."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.stratified import draw_folds


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(max(classes) + 1, dtype=np.uint8)[classes]


@pytest.mark.parametrize("seed", [0, 1])
def test_each_fold_has_its_share_of_each_class(seed: int) -> None:
    targets = one_hot([0] * 50 + [1] * 10 + [2] * 7 + [3] * 2)
    fold_of = draw_folds(targets, None, 5, seed)
    counts = np.array([targets[fold_of == fold].sum(0) for fold in range(5)])
    assert (counts[:, 0] == 10).all() and (counts[:, 1] == 2).all()
    assert set(counts[:, 2]) == {1, 2} and counts[:, 3].max() == 1
    assert np.ptp(counts.sum(1)) <= 1


def test_folds_are_a_function_of_the_seed() -> None:
    targets = one_hot([0, 1] * 20)
    first, again, other = (draw_folds(targets, None, 4, seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_groups_stay_whole_and_classes_balanced() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(40, size=400).astype(str)
    targets = (rng.random((400, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(np.uint8)  # several labels each, or none
    fold_of = draw_folds(targets, groups, 4, 0)
    assert all(len(set(fold_of[groups == group])) == 1 for group in set(groups))
    shares = np.array([targets[fold_of == fold].sum(0) for fold in range(4)]) / targets.sum(0)
    assert shares.min() > 0.1 and shares.max() < 0.45
    assert np.bincount(fold_of).min() > 70


@pytest.mark.parametrize("classes", [[0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 2, 3]])
def test_no_fold_is_empty(classes: list[int]) -> None:
    for folds in range(2, len(classes) + 1):
        assert len(set(draw_folds(one_hot(classes), None, folds, 0))) == folds


def test_no_fold_is_empty_whatever_the_groups() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        groups = rng.integers(6, size=30).astype(str)
        targets = (rng.random((30, 3)) < 0.4).astype(np.uint8)
        assert len(set(draw_folds(targets, groups, len(set(groups)), seed))) == len(set(groups))


@pytest.mark.parametrize("folds", [1, 3])
def test_as_many_folds_as_groups_at_most(folds: int) -> None:
    with pytest.raises(ValueError, match="2"):
        draw_folds(one_hot([0, 1, 0, 1]), list("aabb"), folds, 0)
