"""Weights of classes of unequal size."""

import numpy as np


def class_weights(counts: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Inverse frequency of each class: 1000 / (smoothing + clips of the class), float64; 0 for a class without clips.

    `smoothing` keeps the rarest classes from weighing most: with 100, as in PaSST's AudioSet recipe, a class of 10 clips weighs
    no more than twice as much as one of 120.
    """
    return np.divide(1000.0, smoothing + counts, out=np.zeros(np.shape(counts)), where=counts > 0)


def with_unlabelled(targets: np.ndarray) -> np.ndarray:
    """Add a column to targets (N, K) of 0 and 1: the class of the clips that have no other one."""
    return np.concatenate([targets, targets.sum(1, keepdims=True) == 0], axis=1)
