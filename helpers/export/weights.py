"""Weights of exported files in 8 or 16 bits, which ONNX Runtime turns into float32 once, when it loads the file.

Computing with 8-bit integers is another matter: where it was measured (`docs/onnx.md`), it is slower and much less exact.
"""

from __future__ import annotations

import numpy as np

MIN_VALUES = 4096  # of a tensor in 8 bits: smaller ones would save little
LARGEST = 127
SHRUNK = np.linspace(0.8, 1, 21)  # scales that are tried, as parts of the one that fits the largest value


def to_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round each output channel weight[i] to multiples of its own scale: return int8 of the same shape, and float32 (n, 1, ...).

    Of several scales it takes the one with the smallest sum of squared errors. Larger values than 127 times that are cut.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    fitting = np.abs(rows).max(1, keepdims=True) / LARGEST
    fitting[fitting == 0] = 1  # a channel of zeros
    scales = (fitting * SHRUNK).astype(np.float32)  # (n, tried)
    errors = [((_rounded(rows, scale) * scale - rows) ** 2).sum(1) for scale in np.split(scales, len(SHRUNK), 1)]
    scale = np.take_along_axis(scales, np.argmin(errors, axis=0)[:, None], 1)
    return _rounded(rows, scale).astype(np.int8).reshape(weight.shape), scale.reshape(-1, *[1] * (weight.ndim - 1))


def _rounded(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rows / scale), -LARGEST, LARGEST)
