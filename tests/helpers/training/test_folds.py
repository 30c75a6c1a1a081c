"""Scores over folds."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from helpers.training.folds import mean_and_deviation, write_scores

SCORES = [{"accuracy": 0.5, "loss": 2.0}, {"accuracy": 0.8, "loss": 1.0}, {"accuracy": 0.8, "loss": 3.0}]


def test_mean_and_standard_deviation_by_hand() -> None:
    mean, deviation = mean_and_deviation(SCORES)
    assert mean == pytest.approx({"accuracy": 0.7, "loss": 2.0})
    assert deviation == pytest.approx({"accuracy": 0.03**0.5, "loss": 1.0})


def test_scores_are_written_by_fold_and_epoch(tmp_path: Path) -> None:
    write_scores(tmp_path / "folds.csv", ["a", "b", "c"], {"last": SCORES, "best": SCORES[::-1]})
    with open(tmp_path / "folds.csv", newline="") as file:
        rows = {(row["epoch"], row["fold"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    assert len(rows) == 10
    assert (rows["last", "a"], rows["best", "a"], rows["best", "c"]) == (0.5, 0.8, 0.5)
    assert rows["last", "mean"] == 0.7 and rows["best", "standard deviation"] == pytest.approx(0.1732)
