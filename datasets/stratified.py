"""Divide clips, so that every class is represented in training and, where it can be, in validation."""

from collections.abc import Sequence

import numpy as np

from datasets.balance import with_unlabelled
from models.errors import UserError


def draw_stratified(targets: np.ndarray, groups: Sequence[str] | None, share: float, seed: int) -> np.ndarray:
    """Draw about `share` of each class's clips, at least one: whole groups, the rarest classes first.

    `targets` is (N, K) of 0 and 1; returns indices (n,), ascending. The last group of a class is never drawn. After Sechidis et
    al., ECML PKDD 2011; scikit-learn's stratified splitters may draw the only group of a class, which must not happen here.
    """
    group_of, counts = _count(targets, groups)
    order = np.random.default_rng(seed).permutation(len(counts))
    counts = counts[order]
    goal = np.maximum(1, np.round(share * counts.sum(0)))
    groups_left = (counts > 0).sum(0)  # of each class, in training
    drawn, is_drawn = np.zeros(counts.shape[1]), np.zeros(len(counts), bool)

    def can_be_spared(group: int) -> bool:
        return bool((groups_left[counts[group] > 0] > 1).all())

    def draw(group: int) -> None:
        is_drawn[group] = True
        drawn[:] += counts[group]
        groups_left[:] -= counts[group] > 0

    for k in np.argsort(groups_left, kind="stable"):
        members = np.flatnonzero((counts[:, k] > 0) & ~is_drawn)
        for group in members:
            if drawn[k] >= goal[k]:
                break
            if abs(drawn[k] + counts[group, k] - goal[k]) < abs(drawn[k] - goal[k]) and can_be_spared(group):
                draw(group)
        if not drawn[k] and (spare := [group for group in members if can_be_spared(group)]):
            draw(min(spare, key=lambda group: counts[group, k]))
    drawn_groups = np.zeros(len(counts), bool)
    drawn_groups[order] = is_drawn
    return np.flatnonzero(drawn_groups[group_of])


def draw_folds(targets: np.ndarray, groups: Sequence[str] | None, folds: int, seed: int) -> np.ndarray:
    """Divide clips into `folds` parts, each with about the same share of each class: whole groups, the rarest classes first.

    `targets` is (N, K) of 0 and 1; returns the fold of each clip, (N,) from 0. Every fold holds a group; UserError where there are
    fewer groups than folds. After Sechidis et al., as above.
    """
    group_of, counts = _count(targets, groups)
    if not 2 <= folds <= len(counts):
        what = "clips" if groups is None else "groups"
        raise UserError(f"{len(counts)} {what} cannot be divided into {folds} folds; give a number from 2 to {len(counts)}")
    order = np.random.default_rng(seed).permutation(len(counts))
    missing = np.tile(counts.sum(0) / folds, (folds, 1))  # of each class in each fold
    fold_of, sizes = np.full(len(counts), -1), np.zeros(folds, int)
    for k in np.argsort((counts > 0).sum(0), kind="stable"):
        members = order[(counts[order, k] > 0) & (fold_of[order] < 0)]
        for group in members[np.argsort(-counts[members, k], kind="stable")]:
            empty = np.flatnonzero(sizes == 0)
            choices = empty if len(empty) == len(counts) - sizes.sum() else range(folds)
            fold = max(choices, key=lambda fold: (missing[fold, k], missing[fold].sum()))
            fold_of[group] = fold
            sizes[fold] += 1
            missing[fold] -= counts[group]
    return fold_of[group_of]


def _count(targets: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """The group of each clip, (N,), and the clips of each group and class, (G, K + 1); those without a class count as one."""
    counts = with_unlabelled(targets).astype(np.int32)
    if groups is None:
        return np.arange(len(targets)), counts
    group_of = np.unique(groups, return_inverse=True)[1]
    sums = np.zeros((group_of.max() + 1, counts.shape[1]), np.int32)
    np.add.at(sums, group_of, counts)
    return group_of, sums
