"""Reading of good recordings: this checkout against another one of this project.

    python -m benchmarks.reading --baseline ../before --folder data/klettres

Decodes 10 s of mp3, wav, flac and ogg, by path and as bytes, and the recordings of a folder. One process of each checkout stays
open, and they take turns in random order, so that other work on the machine slows down both. "ms" is processor time for a
recording, the median over the rounds, after one that warms up. Ratios are this checkout's time to that of the baseline: the
median over the rounds and their quartiles, of processor time and of elapsed time.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from benchmarks.common import BASELINE, ROOT, THIS, CheckoutProcess, interleaved, machine, print_table, ratios, spread
from benchmarks.input_speed import bundled_waveforms
from datasets import audio
from helpers import cli
from models.errors import UserError

RATE = 32000  # Hz
DECODINGS = 10  # of a single recording in a round: they are short
SUBTYPES = {"mp3": "MPEG_LAYER_III", "wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS"}

WORKER = """
import json, sys, time
from pathlib import Path
from datasets import audio
for line in sys.stdin:
    task = json.loads(line)
    sources = [Path(path) for path in task["paths"]]
    sources = [path.read_bytes() for path in sources] if task["as_bytes"] else sources
    wall, cpu = time.perf_counter(), time.process_time()
    samples = [len(audio.decode(source)[0]) for _ in range(task["repeats"]) for source in sources]
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, samples]), flush=True)
"""


@dataclass(frozen=True)
class Task:
    """Recordings to decode, and how often."""

    name: str
    paths: tuple[Path, ...]
    as_bytes: bool
    repeats: int


class Reader:
    """A process that decodes with the code of a checkout."""

    def __init__(self, checkout: Path) -> None:
        self._process = CheckoutProcess(checkout, WORKER)
        self.close = self._process.close

    def __call__(self, task: Task) -> tuple[float, float, list[int]]:
        """Return elapsed seconds, processor seconds and the samples of each recording."""
        order = {"paths": [str(path) for path in task.paths], "as_bytes": task.as_bytes, "repeats": task.repeats}
        return tuple(self._process(order))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--baseline", type=cli.absolute_path, required=True, help="folder of the checkout to compare with")
    parser.add_argument("--folder", type=cli.absolute_path, help="folder of good recordings in any depth")
    parser.add_argument("--clips", type=cli.positive_int, default=1000, help="maximum number of recordings of the folder")
    parser.add_argument("--seconds", type=cli.positive_float, default=10.0, help="length of the single recordings")
    parser.add_argument("--rounds", type=cli.positive_int, default=20, help="timed runs of each")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not (args.baseline / "datasets" / "audio.py").is_file():
        raise UserError(f"{args.baseline} is no checkout of this project: it has no datasets/audio.py")
    print(machine("numpy", "soundfile"))
    with tempfile.TemporaryDirectory() as folder:
        tasks = single_recordings(Path(folder), args.seconds)
        readers = {THIS: Reader(ROOT), BASELINE: Reader(args.baseline)}
        try:
            if args.folder:
                tasks.append(folder_task(args.folder, args.clips, readers))
            print_table(f"{args.rounds} rounds", HEADER, [compare(task, readers, args.rounds) for task in tasks])
        finally:
            for reader in readers.values():
                reader.close()
    return 0


def single_recordings(folder: Path, seconds: float) -> list[Task]:
    """Write a recording in each format; one task reads it by path, one as bytes."""
    waveform = np.concatenate(list(bundled_waveforms(seconds, 1, 0).values()))
    tasks = []
    for format, subtype in SUBTYPES.items():
        path = folder / f"recording.{format}"
        soundfile.write(path, waveform, RATE, subtype=subtype)
        tasks += [Task(f"{format}, {way}", (path,), way == "bytes", DECODINGS) for way in ("path", "bytes")]
    return tasks


def folder_task(folder: Path, count: int, readers: dict[str, Reader]) -> Task:
    """Read recordings of a folder, drawn at random, without damaged ones and those that the checkouts find differently long."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in audio.SUFFIXES and path.is_file())
    good: list[Path] = []
    for path in random.Random(0).sample(found, len(found)):
        if len(good) == count:
            break
        try:
            audio.decode(path, strict=True)
            good.append(path)
        except UserError:
            continue
    lengths = [reader(Task(folder.name, tuple(good), False, 1))[2] for reader in readers.values()]
    same = tuple(path for path, *samples in zip(good, *lengths, strict=True) if len(set(samples)) == 1)
    if not same:
        raise UserError(f"{folder} holds no good recordings")
    return Task(f"{len(same)} of {folder.name}", same, False, 1)


HEADER = ("recordings", "ms", "baseline ms", "ratio, processor", "quartiles", "ratio, elapsed", "quartiles ")


def compare(task: Task, readers: dict[str, Reader], rounds: int) -> tuple[str, ...]:
    """Return a row of the table; raises UserError if the two do not decode the same number of samples."""
    walls, cpus = {key: [] for key in readers}, {key: [] for key in readers}
    samples: set[tuple[int, ...]] = set()
    for number, key in interleaved(list(readers), rounds):
        wall, cpu, decoded = readers[key](task)
        samples.add(tuple(decoded))
        if number:
            walls[key].append(wall)
            cpus[key].append(cpu)
    if len(samples) > 1:
        raise UserError(f"{task.name}: the checkouts decode different numbers of samples")
    files = len(task.paths) * task.repeats
    times = [f"{1000 * median(cpus[key]) / files:.2f}" for key in (THIS, BASELINE)]
    spreads = [part for values in (cpus, walls) for part in spread(ratios(values[THIS], values[BASELINE]))]
    return (task.name, *times, *spreads)


if __name__ == "__main__":
    cli.run(main)
