"""Thresholds of classes: one for all, or one for each in a table (columns label and threshold)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from datasets.csv_table import parse_own_table, read_text, write_table
from helpers.tagger.events import THRESHOLD
from helpers.tagger.selection import find_classes
from models.config import is_number
from models.errors import UserError

Thresholds: TypeAlias = float | np.ndarray | Mapping[str, float] | str | os.PathLike[str]


def class_thresholds(thresholds: Thresholds, labels: Sequence[str]) -> float | np.ndarray:
    """Return one threshold for all classes, or (K,).

    `thresholds` are one of these, a dict by label, or the path of a table. Classes that a dict or table leaves out have
    `events.THRESHOLD`. Raises `UserError` for thresholds outside of 0 to 1, unknown labels and other tables.
    """
    if isinstance(thresholds, (str, os.PathLike)):
        path = Path(thresholds)
        try:
            return class_thresholds(read_thresholds(path), labels)
        except UserError as error:
            raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    if isinstance(thresholds, Mapping):
        values = np.full(len(labels), THRESHOLD)
        for label, value in thresholds.items():
            [k] = find_classes([label], labels)
            values[k] = _checked(value, f"the threshold of {label!r}")
        return values
    if isinstance(thresholds, np.ndarray) and thresholds.ndim:
        return thresholds
    return _checked(thresholds, "the threshold")


def write_thresholds(path: str | Path, thresholds: Mapping[str, float]) -> None:
    """Write a table that `class_thresholds` reads."""
    write_table(Path(path), [("label", "threshold"), *((label, f"{value:.6g}") for label, value in thresholds.items())])


def read_thresholds(path: Path) -> dict[str, float]:
    """Return what a table holds, by label. Raises `UserError` for another table."""
    found: dict[str, float] = {}
    text = read_text(path, "give a number from 0 to 1, or a table with the columns label and threshold")
    for line, row in parse_own_table(text, path, ("label", "threshold"), None):
        if row["label"] in found:
            raise UserError(f"{path}, line {line}: {row['label']!r} has a threshold already")
        try:
            found[row["label"]] = float(row["threshold"])
        except ValueError as error:
            raise UserError(f"{path}, line {line}: the threshold is {row['threshold']!r}, not a number from 0 to 1") from error
    return found


def _checked(value: object, what: str) -> float:
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{what} is {value!r:.50}; it must be a number from 0 to 1")
    return float(value)
