"""Time to load a released checkpoint: from its name to a network that computes.

    python -m benchmarks.load_time --model_name mn40_as
    python -m benchmarks.load_time --model_name mn10_as --baseline ../before

The file holds random weights in the format of the release, in a temporary folder: nothing is downloaded. Seconds are medians
over rounds in one process, after one that fills the disk cache; torch is imported before.

With --baseline the two checkouts take turns, each time in a fork of a process that has imported everything: the processor time
to load the checkpoint for the first time and again, and the file that the checkout exported, by its path and by the model's name.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from benchmarks import common
from benchmarks.common import BASELINE, THIS, spread
from helpers import cli
from models import checkpoints
from models.errors import UserError
from models.registry import PRETRAINED

WAYS = ("checkpoint, first", "checkpoint, again", "ONNX file", "ONNX, by name")
HEADER = ("what", "ms", "baseline ms", "ratio, processor", "quartiles")

WORKER = """
import json, os, sys, time
import torch
from helpers.export.runtime import OnnxBackend, load_backend
from models import checkpoints

torch.set_num_threads(1)

def checkpoint():
    for parameter in checkpoints.load_model(task["name"]).parameters():
        parameter.sum()

def seconds(load):
    start = time.process_time()
    load()
    return time.process_time() - start

for line in sys.stdin:
    task = json.loads(line)
    if os.fork() == 0:
        loads = {"ONNX file": lambda: OnnxBackend(task["path"], 1), "ONNX, by name": lambda: load_backend(task["name"])}
        load = loads.get(task["way"], checkpoint)
        if task["way"].endswith("again"):
            load()
        print(seconds(load), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""


class Loader:
    """A process that loads with the code of a checkout, in forks: everything is imported, and nothing was loaded before."""

    def __init__(self, checkout: Path, name: str, exported: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        export = ["export.py", "--model_name", name, "--output", str(exported)]
        if subprocess.run([sys.executable, *export], cwd=checkout, env=environment, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"{checkout} cannot export {name}; see the error above")
        self._model = {"name": name, "path": str(exported)}
        self._process = common.CheckoutProcess(checkout, WORKER)

    def __call__(self, way: str) -> float:
        """Return the processor seconds of one load."""
        return self._process({**self._model, "way": way})

    def close(self) -> None:
        self._process.close()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", choices=PRETRAINED, default="mn40_as", metavar="NAME", help="a released model")
    parser.add_argument("--baseline", type=cli.absolute_path, help="folder of the checkout to compare with")
    parser.add_argument("--rounds", type=cli.positive_int, default=9, help="how often to load it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("torch"))
    entry = PRETRAINED[args.model_name]
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, EFFICIENTAT_RESOURCES=folder):
        path = Path(folder) / entry.asset
        torch.save(entry.arch.build().state_dict(), path)
        if args.baseline:
            rows = baseline_rows(args.model_name, args.baseline, Path(folder), args.rounds)
            common.print_table(f"{args.model_name}, {args.rounds} rounds", HEADER, rows)
            return 0
        size = path.stat().st_size
        seconds = [load_seconds(args.model_name) for _ in range(args.rounds + 1)][1:]
    print(f"{args.model_name}, {size / common.MB:.0f} MB: {median(seconds):.3f} s (from {min(seconds):.3f} to {max(seconds):.3f})")
    return 0


def baseline_rows(name: str, baseline: Path, folder: Path, rounds: int) -> list[tuple[str, ...]]:
    loaders: dict[str, Loader] = {}
    try:
        for key, checkout in ((THIS, common.ROOT), (BASELINE, baseline)):
            loaders[key] = Loader(checkout, name, folder / f"{key}.onnx")
        return compare(loaders, rounds)
    finally:
        for loader in loaders.values():
            loader.close()


def compare(loaders: Mapping[str, Callable[[str], float]], rounds: int) -> list[tuple[str, ...]]:
    """Return a row for each way of loading: processor time, and the ratio to that of the baseline, round by round."""
    loads = {(way, key): partial(loader, way) for way in WAYS for key, loader in loaders.items()}
    seconds = common.measure_interleaved(loads, rounds, measure=lambda load: load())
    rows = []
    for way in WAYS:
        times = [seconds[way, key] for key in (THIS, BASELINE)]
        rows.append((way, *(f"{1000 * median(values):.1f}" for values in times), *spread(common.ratios(*times))))
    return rows


def load_seconds(name: str) -> float:
    """Load a model and read all its weights, which a mapped file gives when they are used."""
    start = time.perf_counter()
    network = checkpoints.load_model(name)
    for parameter in network.parameters():
        parameter.sum()
    return time.perf_counter() - start


if __name__ == "__main__":
    cli.run(main)
