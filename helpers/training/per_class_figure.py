"""Figures of evaluations, drawn without a display. Importing this imports matplotlib: scripts do it when asked for a figure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.metrics import TaggingMetrics
from models.errors import UserError
from models.files import write_atomically


def per_class_figure(labels: Sequence[str], scores: TaggingMetrics, path: str | Path, count: int = 15) -> None:
    """Draw the average precision of the `count` best and the `count` worst classes into a file of any format matplotlib writes.

    Each bar is annotated with its value and the number of positive clips; the stroke on it is what random scores would reach, the
    share of positive clips. Classes without a positive clip are left out. Fewer than 2 * `count` classes are divided between the
    two panels. The file appears under its name when it is complete, and replaces one that is there.

    Raises UserError for a `count` below 1, a number of labels other than K, and where no class has a positive clip.
    """
    path = Path(path)
    if count < 1:
        raise UserError(f"count is {count}; a panel needs one class or more")
    if len(labels) != len(scores.positives):
        raise UserError(f"there are {len(labels)} labels for {len(scores.positives)} classes")
    order = np.argsort(-scores.average_precision, kind="stable")
    order = order[scores.positives[order] > 0]  # scored classes, best first
    if len(order) == 0:
        raise UserError("no class has a positive clip, so there is no average precision to draw")
    best = order[: min(count, -(-len(order) // 2))]
    worst = order[len(best) :][-count:]

    figure = Figure(figsize=(9, 1.6 + 0.26 * (len(best) + len(worst))), layout="constrained")
    figure.suptitle(f"Average precision: {len(order)} classes, {scores.clips} clips, mean {scores.mAP:.3f}")
    panels = {f"The {len(best)} best": best}
    if len(worst):
        panels[f"The {len(worst)} worst, on a scale of their own"] = worst
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=[len(classes) for classes in panels.values()])[:, 0]
    for panel, (title, classes) in zip(axes, panels.items(), strict=True):
        panel.set_title(title, loc="left", fontsize="medium")
        _draw_classes(panel, [labels[k] for k in classes], classes, scores)
    axes[0].set_xlim(0, 1.25)
    axes[0].set_xticks(np.arange(0, 1.1, 0.2))
    axes[-1].set_xlabel("average precision")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize="small", borderaxespad=0)

    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix; it appears when it is complete. What matplotlib's font lacks becomes boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150, bbox_inches="tight"))


def _draw_classes(panel: Axes, names: Sequence[str], classes: np.ndarray, scores: TaggingMetrics) -> None:
    """Draw a bar for each class, the first on top."""
    rows = np.arange(len(classes))
    precision, positives = scores.average_precision[classes], scores.positives[classes]
    chance = positives / scores.clips
    reach = np.maximum(precision, chance)
    panel.barh(rows, precision, color="0.75", edgecolor="0.25")
    panel.plot(chance, rows, "|", color="black", markersize=11, markeredgewidth=2, label="random scores: positive clips / clips")
    for row, value, number, end in zip(rows, precision, positives, reach, strict=True):
        text = f"{value:#.3g}, {number} positive"
        panel.annotate(text, (end, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small")
    panel.set_yticks(rows, names, fontsize="small", parse_math=False)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(0, 1.25 * reach.max())  # room for the text after the longest bar
    panel.locator_params("x", nbins=6)
    panel.spines[["top", "right"]].set_visible(False)
