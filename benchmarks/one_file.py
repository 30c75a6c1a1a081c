"""One recording from the command line: what the ONNX backend takes beside PyTorch.

    python -m benchmarks.one_file --figure one_file.png

Runs `inference.py` as it is typed, with each backend in turns, so that other work on the machine meets both; figures are medians
over the turns, after one that fills the disk cache. Time is that of the whole process, from its start to its end; memory is the
peak of its resident set, as `/usr/bin/time -v` tells it (with PyTorch it is reached at the end, when its libraries are unloaded).
The exported model is made before. For Linux.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks import common
from benchmarks.common import Run
from helpers import cli
from helpers.export import cache as model_cache
from helpers.tagger.audio_tagger import BACKENDS


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", default="mn04_opensounds", help="a name, or the path of a checkpoint")
    parser.add_argument("--audio_path", type=Path, default=common.RECORDINGS / "scene.ogg", help="a recording")
    parser.add_argument("--rounds", type=cli.positive_int, default=9, help="turns to take")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the table into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("torch", "onnxruntime", "numpy"))
    runs = run_in_turns(args.model_name, args.audio_path, args.rounds)
    title = f"{args.audio_path.name} with {args.model_name}"
    print_runs(title, runs)
    if args.figure:
        seconds = {backend: [run.seconds for run in of_one] for backend, of_one in runs.items()}
        peaks = {backend: [run.peak / common.MB for run in of_one] for backend, of_one in runs.items()}
        common.draw_bars({"seconds": seconds, "peak of the memory, MB": peaks}, f"inference.py: {title}", args.figure)
    return 0


def run_in_turns(model_name: str, audio_path: Path, rounds: int) -> dict[str, list[Run]]:
    """Run the command with each backend once a round."""
    model_cache.exported(model_name)
    runs: dict[str, list[Run]] = {backend: [] for backend in BACKENDS}
    for number, backend in common.in_turns(BACKENDS, rounds):
        options = ["--backend", backend, "--model_name", model_name, "--audio_path", audio_path.absolute()]
        run = common.run_process(["inference.py", *options])
        if number:
            runs[backend].append(run)
    return runs


def print_runs(title: str, runs: Mapping[str, Sequence[Run]]) -> None:
    print(f"\n{title:<44} {'seconds':>9} {'peak MB':>9}")
    for backend, of_one in runs.items():
        print(f"{backend:<44} {median(run.seconds for run in of_one):9.2f} {median(run.peak for run in of_one) / common.MB:9.0f}")
    pairs = list(zip(runs["torch"], runs["onnx"], strict=True))
    faster, smaller = median(a.seconds / b.seconds for a, b in pairs), median(a.peak / b.peak for a, b in pairs)
    print(f"{'torch takes times as much as onnx':<44} {faster:9.2f} {smaller:9.2f}")
    print(f"{'both print the same':<44} {'yes' if all(a.printed == b.printed for a, b in pairs) else 'no':>9}")


if __name__ == "__main__":
    cli.run(main)
