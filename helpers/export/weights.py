"""Weights of exported files in 8 bits, which ONNX Runtime turns into float32 once, when it loads the file."""

from __future__ import annotations

import numpy as np

MIN_VALUES = 4096  # of a tensor in 8 bits: smaller ones would save little
LARGEST = 127
SMALLEST_COLUMN = 1e-2  # of factors of columns, the largest of which is 1; scales of weights up to 65504 stay below that
SHRUNK = np.linspace(0.8, 1, 21)  # scales that are tried, as parts of the one that fits the largest value


def to_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return int8 values of the same shape, scales (n, 1, ...) and factors (1, ...), both float16, whose product is near `weight`.

    Each output channel weight[i] has a scale, the one of several with the smallest sum of squared errors; larger values than 127
    times that are cut. Factors make the columns of convolutions equally large: small columns are those of large inputs, as a rule,
    and must not be rounded as coarsely as the largest one. This makes classifiers worse: in (n, inputs) all factors are 1.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    columns = np.ones((1, rows.shape[1]))
    if weight.ndim > 2:
        columns = (rows / _without_zeros(rows.std(1, keepdims=True))).std(0, keepdims=True)
    columns = np.clip(columns / (columns.max() or 1), SMALLEST_COLUMN, 1).astype(np.float16)
    rows = rows / columns
    scales = _without_zeros((np.abs(rows).max(1, keepdims=True) / LARGEST * SHRUNK).astype(np.float16))  # (n, tried)
    errors = [((_rounded(rows, scale) * scale - rows) ** 2).sum(1) for scale in np.split(scales, len(SHRUNK), 1)]
    scale = np.take_along_axis(scales, np.argmin(errors, axis=0)[:, None], 1)
    values = _rounded(rows, scale).astype(np.int8).reshape(weight.shape)
    return values, scale.reshape(-1, *[1] * (weight.ndim - 1)), columns.reshape(1, *weight.shape[1:])


def _rounded(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rows / scale), -LARGEST, LARGEST)


def _without_zeros(divisor: np.ndarray) -> np.ndarray:
    """Put ones in the place of zeros, as channels without weights have them."""
    return np.where(divisor == 0, divisor.dtype.type(1), divisor)
