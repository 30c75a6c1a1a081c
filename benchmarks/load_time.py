"""Time to load a released checkpoint: from its name to a network that computes.

    python -m benchmarks.load_time --model_name mn40_as

The file holds random weights in the format of the release, in a temporary folder: nothing is downloaded. Seconds are medians
over rounds in one process, after one that fills the disk cache; torch is imported before.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from benchmarks import common
from helpers import cli
from models import checkpoints
from models.registry import PRETRAINED


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", choices=PRETRAINED, default="mn40_as", metavar="NAME", help="a released model")
    parser.add_argument("--rounds", type=cli.positive_int, default=9, help="how often to load it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("torch"))
    entry = PRETRAINED[args.model_name]
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, EFFICIENTAT_RESOURCES=folder):
        path = Path(folder) / entry.asset
        torch.save(entry.arch.build().state_dict(), path)
        size = path.stat().st_size
        seconds = [load_seconds(args.model_name) for _ in range(args.rounds + 1)][1:]
    print(f"{args.model_name}, {size / common.MB:.0f} MB: {median(seconds):.3f} s (from {min(seconds):.3f} to {max(seconds):.3f})")
    return 0


def load_seconds(name: str) -> float:
    """Load a model and read all its weights, which a mapped file gives when they are used."""
    start = time.perf_counter()
    network = checkpoints.load_model(name)
    for parameter in network.parameters():
        parameter.sum()
    return time.perf_counter() - start


if __name__ == "__main__":
    cli.run(main)
