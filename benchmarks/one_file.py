"""One recording from the command line: seconds and memory of the ONNX backend and of PyTorch.

    python -m benchmarks.one_file --figure one_file.png

Runs `inference.py` as a user does, with the backends interleaved, so that other work on the machine slows down both. Figures are
medians over the rounds, after one that fills the disk cache. Time is that of the whole process, from its start to its end. Memory
is the peak of its resident set, as `/usr/bin/time -v` reports it (with PyTorch at the end, when its libraries are unloaded). The
exported model is made before. `--baseline` adds the ONNX backend of another checkout. For Linux.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import common
from benchmarks.common import ProcessRun, ratios
from helpers import cli
from helpers.export import cache as model_cache

BACKENDS = ("torch", "onnx")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", default="mn04_distilled", help="a name, or the path of a checkpoint")
    parser.add_argument("--audio_path", type=Path, default=common.RECORDINGS / "scene.ogg", help="a recording")
    parser.add_argument("--rounds", type=cli.positive_int, default=9, help="runs of each backend")
    parser.add_argument("--baseline", type=cli.absolute_path, help="folder of another checkout to compare with")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the table into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("torch", "onnxruntime", "numpy"))
    model_cache.exported(args.model_name)
    options = ["--model_name", args.model_name, "--audio_path", args.audio_path.absolute()]
    commands = {backend: partial(common.run_process, ["inference.py", "--backend", backend, *options]) for backend in BACKENDS}
    if args.baseline:
        arguments = ["inference.py", "--backend", "onnx", *options]
        commands["baseline"] = partial(common.run_process, arguments, cwd=args.baseline)
    runs = common.measure_interleaved(commands, args.rounds, measure=lambda run: run())
    title = f"{args.audio_path.name} with {args.model_name}"
    print_runs(title, runs)
    if args.figure:
        seconds = {backend: [run.seconds for run in of_one] for backend, of_one in runs.items()}
        peaks = {backend: [run.peak / common.MB for run in of_one] for backend, of_one in runs.items()}
        common.draw_bars({"seconds": seconds, "peak of the memory, MB": peaks}, f"inference.py: {title}", args.figure)
    return 0


def print_runs(title: str, runs: Mapping[str, Sequence[ProcessRun]]) -> None:
    seconds, peaks = ({key: [getattr(run, name) for run in of_one] for key, of_one in runs.items()} for name in ("seconds", "peak"))
    rows = [(backend, f"{median(seconds[backend]):.2f}", f"{median(peaks[backend]) / common.MB:.0f}") for backend in runs]
    for other in [backend for backend in runs if backend != "onnx"]:
        rows.append((f"{other} / onnx", *(f"{median(ratios(values[other], values['onnx'])):.2f}" for values in (seconds, peaks))))
    common.print_table(title, ("backend", "seconds", "peak MB"), rows)
    same = all(_labels(a.printed) == _labels(b.printed) for a, b in zip(runs["torch"], runs["onnx"], strict=True))
    print(f"both print the same labels: {'yes' if same else 'no'}")


def _labels(printed: str) -> list[str]:
    """Return the lines without scores, which differ in the last digit where a file has weights in float16."""
    return [line.partition(":")[0] for line in printed.splitlines()]


if __name__ == "__main__":
    cli.run(main)
