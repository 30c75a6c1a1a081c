"""Overlapping windows, of streams and timelines: this checkout against another one of this project.

    python -m benchmarks.stream_speed --baseline ../before

Each checkout computes the same sound with PyTorch and with ONNX Runtime: as a stream, which comes in pieces of a hop, and as the
timeline of a recording. Its process stays open, and the two checkouts take turns in random order, so that other work on the machine
slows down both. Windows are not padded. "ms" is processor time for a second of sound, of all threads, the median over the rounds,
after one that warms up. Ratios are this checkout's time to that of the baseline: the median over the rounds and their quartiles.
Scores are compared as well.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import BASELINE, ROOT, THIS, CheckoutProcess, interleaved, machine, print_table, ratios, spread
from benchmarks.input_speed import bundled_waveforms
from helpers import cli
from models.errors import UserError

WINDOWS = ((3.0, 0.5), (10.0, 2.5))  # window and hop in seconds
BACKENDS = ("torch", "onnx")
KINDS = ("stream", "timeline")
Task = tuple[str, tuple[float, float], str]  # backend, window and hop, kind
HEADER = ("backend", "window, hop", "of a", "ms", "baseline ms", "ratio", "quartiles", "largest difference")

# Answers each task with the processor time that the windows took, and writes their scores.
WORKER = """
import json, sys, time
import numpy as np
from helpers.tagger import AudioTagger
from helpers.tagger.streaming import StreamTagger
task = json.loads(sys.stdin.readline())
taggers = {backend: AudioTagger(task["model_name"], "cpu", backend, min_seconds=0.0) for backend in task["backends"]}
sound = np.load(task["sound"])
print("[]", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    tagger, options = taggers[task["backend"]], {"window": task["window"], "hop": task["hop"]}
    before = time.process_time()
    if task["kind"] == "stream":
        stream, size = StreamTagger(tagger, tagger.sample_rate, **options), round(task["hop"] * tagger.sample_rate)
        windows = [window for start in range(0, len(sound), size) for window in stream.windows(sound[start : start + size])]
        scores = np.array([scores for _, _, scores in windows + stream.last_windows()])
    else:
        scores = tagger.tag_windows(sound, tagger.sample_rate, **options).scores
    seconds = time.process_time() - before
    np.save(task["scores"], scores)
    print(json.dumps([seconds]), flush=True)
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--baseline", type=cli.absolute_path, required=True, help="folder of the checkout to compare with")
    parser.add_argument("--model_name", default="mn04_distilled", help="a name, or the path of a checkpoint")
    parser.add_argument("--seconds", type=cli.positive_float, default=120.0, help="length of the sound")
    parser.add_argument("--rounds", type=cli.positive_int, default=9, help="timed runs of each")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not (args.baseline / "helpers" / "tagger" / "streaming.py").is_file():
        raise UserError(f"{args.baseline} is no checkout of this project: it has no helpers/tagger/streaming.py")
    print(machine("torch", "onnxruntime", "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(args, Path(folder))
    print_table(f"{args.model_name}, {args.seconds:g} s of sound, {args.rounds} rounds, one thread in PyTorch", HEADER, rows)
    return 0


def compare(args: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    [sound] = bundled_waveforms(args.seconds, 1, 0).values()
    np.save(folder / "sound.npy", sound)
    tasks = list(product(BACKENDS, WINDOWS, KINDS))
    times: dict[tuple[str, Task], list[float]] = {(key, task): [] for key in (THIS, BASELINE) for task in tasks}
    processes: dict[str, CheckoutProcess] = {}
    try:
        for key, checkout in ((THIS, ROOT), (BASELINE, args.baseline)):
            processes[key] = CheckoutProcess(checkout, WORKER)
            processes[key]({"model_name": args.model_name, "backends": BACKENDS, "sound": str(folder / "sound.npy")})
        for number, (key, task) in interleaved(list(times), args.rounds):
            backend, (window, hop), kind = task
            order = {"backend": backend, "window": window, "hop": hop, "kind": kind}
            [seconds] = processes[key](order | {"scores": str(scores_path(folder, key, task))})
            if number:
                times[key, task].append(seconds)
    finally:
        for process in processes.values():
            process.close()
    rows = []
    for task in tasks:
        backend, (window, hop), kind = task
        own, other = times[THIS, task], times[BASELINE, task]
        difference = np.abs(np.load(scores_path(folder, THIS, task)) - np.load(scores_path(folder, BASELINE, task))).max()
        milliseconds = [f"{1000 * median(values) / args.seconds:.2f}" for values in (own, other)]
        rows.append((backend, f"{window:g} s, {hop:g} s", kind, *milliseconds, *spread(ratios(own, other)), f"{difference:.0e}"))
    return rows


def scores_path(folder: Path, key: str, task: Task) -> Path:
    backend, (window, hop), kind = task
    return folder / f"{key}-{backend}-{window:g}-{hop:g}-{kind}.npy"


if __name__ == "__main__":
    cli.run(main)
