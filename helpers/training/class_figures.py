"""What an evaluation says about each class, as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from datasets.csv_table import write_results
from helpers.metrics import TaggingMetrics, tagging_metrics
from helpers.training.evaluation import Predictions


def write_class_figures(folder: Path, part: str, labels: Sequence[str], predictions: Predictions, single_label: bool) -> None:
    """Write the figures of each class to files of `folder` whose names begin with `part`.

    With a single label: {part}_classes.csv with precision, recall and F1, and the confusion matrix as {part}_confusion.csv and
    {part}_confusion.png. Otherwise: average precision and ROC-AUC of the classes that have clips, as {part}_classes.csv and
    {part}_classes.png.
    """
    if single_label:
        targets, predicted = predictions.targets.argmax(1), predictions.logits.argmax(1)
        write_classification(folder / f"{part}_classes.csv", labels, targets, predicted)
        write_confusion(folder / f"{part}_confusion", labels, targets, predicted)
        return
    scores = tagging_metrics(predictions.targets, predictions.logits)
    write_tagging(folder / f"{part}_classes.csv", labels, scores)
    if scores.positives.any():
        from helpers.training.per_class_figure import per_class_figure

        per_class_figure(labels, scores, folder / f"{part}_classes.png")


def write_classification(path: Path, labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray) -> None:
    """Write a row for each class, given the class indices (N,) of clips; a cell is empty where its figure is undefined."""
    figures = precision_recall_fscore_support(targets, predicted, labels=range(len(labels)), zero_division=np.nan)
    rows = [
        (label, clips, *("" if np.isnan(value) else f"{value:.4f}" for value in values))
        for label, *values, clips in zip(labels, *figures, strict=True)
    ]
    write_results(path, [("label", "clips", "precision", "recall", "f1"), *rows])


def write_confusion(path: Path, labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray) -> None:
    """Write `path`.csv and `path`.png: clips of each class, a row, by the class they are taken for, a column."""
    from helpers.training.confusion_figure import confusion_figure

    counts = confusion_matrix(targets, predicted, labels=range(len(labels)))
    rows = [(label, *row) for label, row in zip(labels, counts.tolist(), strict=True)]
    write_results(path.with_name(f"{path.name}.csv"), [("label", *labels), *rows])
    confusion_figure(labels, counts, path.with_name(f"{path.name}.png"))


def write_tagging(path: Path, labels: Sequence[str], scores: TaggingMetrics) -> None:
    """Write a row for each class that has positive clips, best average precision first."""
    rows = zip(labels, scores.positives, scores.average_precision, scores.roc_auc, strict=True)
    scored = sorted((row for row in rows if row[1]), key=lambda row: -row[2])
    cells = [(label, positives, f"{precision:.4f}", f"{area:.4f}") for label, positives, precision, area in scored]
    write_results(path, [("label", "positive_clips", "average_precision", "roc_auc"), *cells])
