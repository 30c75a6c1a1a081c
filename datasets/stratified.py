"""Draw clips to validate on, so that every class is represented in training and, where it can be, in validation."""

from collections.abc import Sequence

import numpy as np


def draw_stratified(targets: np.ndarray, groups: Sequence[str] | None, share: float, seed: int) -> np.ndarray:
    """Draw about `share` of each class's clips, at least one: whole groups, the rarest classes first.

    `targets` is (N, K) of 0 and 1; returns indices (n,), ascending. The last group of a class is never drawn. After Sechidis et
    al., ECML PKDD 2011; scikit-learn's stratified splitters may draw the only group of a class, which must not happen here.
    """
    unlabelled = targets.sum(1, keepdims=True) == 0  # counts as a class
    counts = np.concatenate([targets, unlabelled], axis=1).astype(np.int32)  # clips of each group and class
    group_of = np.arange(len(targets))
    if groups is not None:
        group_of = np.unique(groups, return_inverse=True)[1]
        clip_counts, counts = counts, np.zeros((group_of.max() + 1, counts.shape[1]), np.int32)
        np.add.at(counts, group_of, clip_counts)
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
