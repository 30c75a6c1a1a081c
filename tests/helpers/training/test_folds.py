"""Scores over folds."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pytest

from helpers.training.folds import mean_and_deviation, train_folds, write_scores
from helpers.training.run import Run
from models.errors import UserError

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


def test_resuming_folds_removes_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note lies in the folder of a fold that has not begun, which then fails before its first checkpoint."""
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(experiment_name="folds", resume=None, wandb="disabled", fold="all")

    def train(args: argparse.Namespace, folder: Path) -> str:
        with Run(args, folder) as run:
            if args.fold == "b":
                raise broken
            run.open()
        return args.fold

    for broken in (KeyboardInterrupt(), UserError("a spoilt file"), OSError("a full disk"), RuntimeError("a mistake")):
        with pytest.raises(type(broken)):
            train_folds(args, ["a", "b"], train)
        args.resume = Path("runs/folds")
        note = args.resume / "fold_b" / "note.txt"
        note.parent.mkdir(exist_ok=True)
        note.write_text("mine")
        before = sorted((args.resume / "fold_a").iterdir())
    assert note.read_text() == "mine" and sorted((args.resume / "fold_a").iterdir()) == before
    assert "a mistake" in (note.parent / "log.txt").read_text()
