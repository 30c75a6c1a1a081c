"""Cross-validation: one training for each fold, in folders below the experiment's own, and the mean of their scores."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from datasets.csv_table import write_results
from helpers.training import finetuning
from helpers.training.run import experiment_folder

ALL = "all"  # value of --fold

Result = TypeVar("Result")


def train_folds(
    args: argparse.Namespace, folds: Sequence[str], train: Callable[[argparse.Namespace, Path], Result]
) -> tuple[Path, list[Result]]:
    """Call `train` with the options and the folder of each fold; return the experiment's folder and the results.

    An experiment that `--resume` names resumes with the folds that are not complete.
    """
    folder = experiment_folder(args)
    return folder, [train(argparse.Namespace(**vars(args) | {"fold": fold}), folder / folder_name(fold)) for fold in folds]


def folder_name(fold: str) -> str:
    """The name of a fold's folder."""
    return f"fold_{quote(fold, safe='')}"


def mean_and_deviation(scores: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation of each score over two or more folds."""
    by_name = {name: np.array([of_fold[name] for of_fold in scores]) for name in scores[0]}
    mean = {name: float(values.mean()) for name, values in by_name.items()}
    return mean, {name: float(values.std(ddof=1)) for name, values in by_name.items()}


def print_mean(scores: Sequence[Mapping[str, float]], epoch: str) -> None:
    """Print mean and standard deviation of the scores over the folds; `epoch` says of which epoch they are."""
    for name, values in zip(("Mean", "Standard deviation"), mean_and_deviation(scores), strict=True):
        finetuning.print_scores(f"{name} of the {len(scores)} folds, {epoch}", values)


def write_scores(path: Path, folds: Sequence[str], scores: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Write the scores of each fold, and their mean and standard deviation, to a CSV file; `scores` are by epoch (last, best)."""
    names = list(next(iter(scores.values()))[0])
    rows: list[Sequence[object]] = [("fold", "epoch", *names)]
    for epoch, of_folds in scores.items():
        lines = zip((*folds, "mean", "standard deviation"), (*of_folds, *mean_and_deviation(of_folds)), strict=True)
        rows += [(fold, epoch, *(f"{values[name]:.4f}" for name in names)) for fold, values in lines]
    write_results(path, rows)
