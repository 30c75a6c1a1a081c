"""Figure of a confusion matrix, drawn without a display. Importing this imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from helpers.training.per_class_figure import save
from models.errors import UserError

COUNTS_UP_TO = 20  # classes; with more, the counts would not be readable
LABELS_UP_TO = 100  # classes; with more, not every one is named


def confusion_figure(labels: Sequence[str], counts: np.ndarray, path: str | Path) -> None:
    """Draw a confusion matrix, (K, K) clips of each true class (row) and predicted class, into a file of any format of matplotlib.

    The shade is the share of the row's clips. The file appears under its name when it is complete, and replaces one that is there.

    Raises UserError for a number of labels other than K.
    """
    path, number = Path(path), len(labels)
    if counts.shape != (number, number):
        raise UserError(f"there are {number} labels for a confusion matrix of {counts.shape}")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = np.clip((0.5 if number <= COUNTS_UP_TO else 0.2) * number, 1.5, 20)  # inches
    figure = Figure(figsize=(side + 2, side + 1.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the class's clips")
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{counts.sum()} clips, {right:.1%} right", fontsize="medium")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    named = range(0, number, -(-number // LABELS_UP_TO))
    size = 9 if number <= COUNTS_UP_TO else 7
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(named, [_shortened(labels[k]) for k in named], rotation=rotation, fontsize=size, parse_math=False)
    if number <= COUNTS_UP_TO:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=9)
    save(figure, path)


def _shortened(label: str, length: int = 30) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"
