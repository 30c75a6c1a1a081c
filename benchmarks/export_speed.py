"""Exported models in ONNX Runtime: this checkout against another one of this project.

    python -m benchmarks.export_speed --baseline ../before

Each checkout exports the front end alone and whole networks of random weights, and computes a clip as its ONNX backend does. Its
process stays open, one for each number of threads, and the two checkouts take turns in random order, so that other work on the
machine slows down both. "ms" is processor time for a clip, of all threads, the median over the rounds, after one that warms up.
Ratios are this checkout's time to that of the baseline: the median over the rounds and their quartiles, of processor time and of
elapsed time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.common import BASELINE, MB, ROOT, THIS, CheckoutProcess, interleaved, machine, print_table, ratios, spread
from benchmarks.input_speed import bundled_waveforms
from helpers import cli
from helpers.devices import available_cores
from models import checkpoints
from models.config import Arch
from models.errors import UserError
from models.network import MobileNetV3

FRONT_END = "front end"
REPEATS = 3  # clips of one timed run
HEADER = (
    "part", "threads", "MB", "baseline MB", "ms", "baseline ms", "ratio, processor", "quartiles", "ratio, elapsed", "quartiles ",
)  # fmt: skip

# Exports all parts into a folder and answers with the files' sizes; then computes a clip as often as asked.
WORKER = """
import json, sys, time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
import numpy as np
import export
from helpers.export.front_end import front_end_to_onnx
from helpers.export.runtime import OnnxBackend, new_session
from models.config import MelConfig
task = json.loads(sys.stdin.readline())
folder, clip = Path(task["folder"]), np.load(task["clip"])
computations, sizes = {}, {}
for part, checkpoint in task["parts"].items():
    file = folder / f"{part}.onnx"
    if checkpoint:
        with redirect_stdout(sys.stderr):
            export.main(["--model_name", checkpoint, "--output", str(file)])
        compute = partial(OnnxBackend(file, task["threads"]), [clip])
    else:
        file.write_bytes(front_end_to_onnx(MelConfig()).SerializeToString())
        compute = partial(new_session(file, task["threads"]).run, None, {"waveform": clip[None]})
    computations[part], sizes[part] = compute, file.stat().st_size
print(json.dumps(sizes), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(task["repeats"]):
        computations[task["part"]]()
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--baseline", type=cli.absolute_path, required=True, help="folder of the checkout to compare with")
    parser.add_argument(
        "--widths", type=cli.positive_float, nargs="+", default=[0.4, 1.0], help="width multipliers of the networks"
    )
    parser.add_argument("--threads", type=cli.positive_int, nargs="+", default=sorted({1, available_cores()}), help="threads")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=10.0, help="length of the clip")
    parser.add_argument("--rounds", type=cli.positive_int, default=30, help="timed runs of each")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not (args.baseline / "helpers" / "export" / "runtime.py").is_file():
        raise UserError(f"{args.baseline} is no checkout of this project: it has no helpers/export/runtime.py")
    print(machine("onnxruntime", "numpy"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        [clip] = bundled_waveforms(args.clip_seconds, 1, 0).values()
        np.save(folder / "clip.npy", clip)
        parts: dict[str, str | None] = {FRONT_END: None} | {
            f"mn{round(10 * width):02d}": str(write_network(folder, width)) for width in args.widths
        }
        rows = [row for threads in args.threads for row in compare(args.baseline, folder, parts, threads, args.rounds)]
    print_table(f"{args.clip_seconds:g} s, {args.rounds} rounds", HEADER, rows)
    return 0


def write_network(folder: Path, width: float) -> Path:
    torch.manual_seed(0)
    path = folder / f"{width:g}.pt"
    checkpoints.save(path, MobileNetV3(Arch(width_mult=width)))
    return path


def compare(baseline: Path, folder: Path, parts: dict[str, str | None], threads: int, rounds: int) -> list[tuple[str, ...]]:
    """Return the rows of the table for a number of threads."""
    processes: dict[str, CheckoutProcess] = {}
    sizes = {}
    times: dict[tuple[str, str], list[tuple[float, float]]] = {(key, part): [] for key in (THIS, BASELINE) for part in parts}
    try:
        for key, checkout in ((THIS, ROOT), (BASELINE, baseline)):
            own = folder / key
            own.mkdir(exist_ok=True)
            processes[key] = CheckoutProcess(checkout, WORKER)
            task = {"folder": str(own), "clip": str(folder / "clip.npy"), "parts": parts, "threads": threads}
            sizes[key] = processes[key](task)
        for number, (key, part) in interleaved(list(times), rounds):
            answer = processes[key]({"part": part, "repeats": REPEATS})
            if number:
                times[key, part].append(answer)
    finally:
        for process in processes.values():
            process.close()
    rows = []
    for part in parts:
        (walls, cpus), (other_walls, other_cpus) = (zip(*times[key, part], strict=True) for key in (THIS, BASELINE))
        milliseconds = [f"{1000 * median(values) / REPEATS:.2f}" for values in (cpus, other_cpus)]
        megabytes = [f"{sizes[key][part] / MB:.2f}" for key in (THIS, BASELINE)]
        spreads = [*spread(ratios(cpus, other_cpus)), *spread(ratios(walls, other_walls))]
        rows.append((part, str(threads), *megabytes, *milliseconds, *spreads))
    return rows


if __name__ == "__main__":
    cli.run(main)
