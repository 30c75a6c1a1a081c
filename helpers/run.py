"""The folder of one training run: its configuration, one line of metrics an epoch, its checkpoints."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import checkpoints
from models.network import MobileNetV3

logger = logging.getLogger(__name__)

RUNS_DIR = Path("runs")  # in the working directory


class Run:
    """Writes `config.json`, `metrics.csv`, `last.pt` and `best.pt` to a folder of its own.

    Folder: runs/<experiment_name>, numbered on if it exists, so that no run overwrites another.
    """

    def __init__(self, experiment_name: str, args: argparse.Namespace) -> None:
        if not experiment_name or experiment_name.startswith(".") or Path(experiment_name).name != experiment_name:
            raise ValueError(f"--experiment_name names a folder below {RUNS_DIR}/ and must be plain, not {experiment_name!r}")
        self.folder = _new_folder(RUNS_DIR / experiment_name)
        self.args: dict[str, Any] = vars(args)
        self.best: float | None = None
        config = {"command": sys.argv, "args": self.args}
        (self.folder / "config.json").write_text(json.dumps(config, indent=2, default=os.fspath) + "\n")
        logger.info("this run's folder: %s", self.folder)

    def log(self, epoch: int, metrics: dict[str, float]) -> None:
        """Append one row to metrics.csv; every epoch has the same metrics."""
        path = self.folder / "metrics.csv"
        is_new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *metrics])
            if is_new:
                writer.writeheader()
            writer.writerow({"epoch": epoch, **metrics})
        logger.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    def save(self, model: MobileNetV3, epoch: int, metrics: dict[str, float], selection: str) -> None:
        """Write last.pt, and best.pt when the metric `selection` is higher than ever before in this run."""
        checkpoints.save(self.folder / "last.pt", model, epoch=epoch, metrics=metrics, args=self.args)
        if self.best is None or metrics[selection] > self.best:
            self.best = metrics[selection]
            checkpoints.save(self.folder / "best.pt", model, epoch=epoch, metrics=metrics, args=self.args)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch; data-loader workers take their seeds from torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _new_folder(path: Path) -> Path:
    number = 1
    while True:
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
