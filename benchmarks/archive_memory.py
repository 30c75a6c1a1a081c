"""Does memory of an archive's driver and workers grow with the number of recordings?

    python -m benchmarks.archive_memory --recordings 200000 --figure archive_memory.png

Synthetic recordings of 0.1 to 0.5 s at 32 kHz, in tars of 10,000, go through the engine of archive.py: listing, plan, decoding in
processes of their own, and writing, on Ray. In place of a network, scores are computed from the samples' mean: what may grow is
what the engine and Ray keep. Every two seconds the anonymous memory of all processes is counted by what they do. The table compares
the second fifth of the recordings with the fourth one; in the last one workers end. For Linux.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks import common
from datasets.audio import encode_wav
from helpers import cli
from helpers.archive.decode import Reading, TaskDecoder
from helpers.archive.engine import run
from helpers.archive.inputs import list_inputs
from helpers.archive.output import Output
from helpers.archive.parcels import Counts, Parcel
from helpers.archive.plan import Plan
from helpers.archive.pool import Resources, started
from helpers.archive.schema import Settings, schema, to_table

if TYPE_CHECKING:
    import pyarrow as pa

RATE = 32000  # Hz
SECONDS = (0.1, 0.5)
TAR_RECORDINGS = 10_000
LABELS = tuple(f"class {number}" for number in range(527))
INTERVAL = 2.0  # seconds between samples
# What a process does, by what its command line or its title holds; the first that fits.
ROLES = {
    "DecodeStep": "decoding",
    "serve(limit)": "decoding processes",
    "NetworkStep": "network",
    "WriteStep": "writing",
    "ray::IDLE": "compaction",
    "": "Ray",
}
DRIVER, STORE = "driver", "object store"


class Sample(NamedTuple):
    recordings: int  # done
    memory: dict[str, float]  # MB, by role


@dataclass(frozen=True)
class MeanScores:
    """A work without a network."""

    def decoder(self) -> TaskDecoder:
        return TaskDecoder(Reading(RATE, time_limit=60.0))

    def network(self, threads: int) -> Callable[[Parcel, np.ndarray], pa.Table]:
        return mean_scores


def mean_scores(parcel: Parcel, samples: np.ndarray) -> pa.Table:
    """Return a row for each piece: scores of as many classes as AudioSet has."""
    means = [np.float32(own.mean()) if len(own) else 0.0 for own in parcel.waveforms(samples)]
    columns = {
        "source": [piece.source for piece in parcel.pieces],
        "start": [piece.start for piece in parcel.pieces],
        "end": [piece.end for piece in parcel.pieces],
        "scores": [np.full(len(LABELS), mean, np.float32) for mean in means],
        "error": [piece.error for piece in parcel.pieces],
    }
    return to_table(columns, schema(Settings(("mean",)), [LABELS], [0]))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive_memory", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("--recordings", type=cli.positive_int, default=200_000, help="how many")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw memory over recordings into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("ray", "pyarrow"))
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder, "in"), args.recordings)
        start = time.monotonic()
        samples = measure(Path(folder, "in"), Path(folder, "out"))
        rows = sum(batch.num_rows for batch in Output(Path(folder, "out")).rows(["source"]))
    print(f"{rows:,} rows in {time.monotonic() - start:.0f} s")
    common.print_table("Memory (MB), medians over fifths of the recordings", ("processes", "second", "fourth"), growth(samples))
    if args.figure:
        draw(samples, args.figure)
    return 0 if rows == args.recordings else 1


def write_recordings(folder: Path, count: int) -> None:
    """Write tars; all but a smaller last one are links to the first, whose recordings are noise."""
    folder.mkdir()
    tars = [min(TAR_RECORDINGS, count - first) for first in range(0, count, TAR_RECORDINGS)]
    for number, size in enumerate(tars):
        path = folder / f"{number:05}.tar"
        if number and size == TAR_RECORDINGS:
            path.symlink_to(folder / "00000.tar")
        else:
            write_tar(path, size)


def write_tar(path: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            samples = generator.uniform(-0.5, 0.5, round(generator.uniform(*SECONDS) * RATE)).astype(np.float32)
            content = encode_wav(samples, RATE)
            member = tarfile.TarInfo(f"{number:05}.wav")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))


def measure(folder: Path, output: Path) -> list[Sample]:
    """Make an archive; return samples of all processes' memory."""
    total = Counts()
    samples: list[Sample] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(INTERVAL):
            samples.append(Sample(total.recordings, memory(os.getpid())))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        plan = Plan(output)
        plan.extend(list_inputs(str(folder)))
        with started(Resources()) as pool:
            run(MeanScores(), plan, Output(output), pool, total.add)
    finally:
        done.set()
        thread.join()
    return samples


def memory(driver: int) -> dict[str, float]:
    """Return the memory in MB of a process and of those that it started, by role; shared memory is that of Ray's object store."""
    parents: dict[int, int] = {}
    found: dict[int, tuple[str, dict[str, str]]] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
            found[int(process.name)] = ((process / "cmdline").read_text(errors="replace"), status)
            parents[int(process.name)] = int(status["PPid"])
        except (OSError, KeyError, ValueError):  # it has just ended
            continue
    totals: dict[str, float] = defaultdict(float)
    for process, (command, status) in found.items():
        if "RssAnon" not in status or not _is_below(process, driver, parents):
            continue
        role = DRIVER if process == driver else next(role for text, role in ROLES.items() if text in command)
        totals[role] += int(status["RssAnon"].split()[0]) * 1024 / common.MB
        totals[STORE] = max(totals[STORE], int(status["RssShmem"].split()[0]) * 1024 / common.MB)
    return dict(totals)


def _is_below(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process != ancestor and process in parents:
        process = parents[process]
    return process == ancestor


def roles(samples: Sequence[Sample]) -> list[str]:
    known = dict.fromkeys([DRIVER, *ROLES.values(), STORE])
    return [role for role in known if any(role in sample.memory for sample in samples)]


def growth(samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """Return the median memory of each role in the second and the fourth fifth of the recordings."""
    counts = np.array([sample.recordings for sample in samples])
    fifths = np.minimum(5 * counts / max(1, counts[-1]), 4).astype(int)
    rows = []
    for role in roles(samples):
        values = np.array([sample.memory.get(role, 0.0) for sample in samples])
        second, fourth = (np.median(values[fifths == fifth]) if (fifths == fifth).any() else np.nan for fifth in (1, 3))
        rows.append((role, f"{second:.0f}", f"{fourth:.0f}"))
    return rows


def draw(samples: Sequence[Sample], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    running = [sample for sample in samples if sample.recordings]
    for role in roles(samples):
        axes.plot([sample.recordings for sample in running], [sample.memory.get(role, 0.0) for sample in running], label=role)
    axes.set_xlabel("recordings done")
    axes.set_ylabel("memory (MB)")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    common.save_figure(figure, path)


if __name__ == "__main__":
    cli.run(main)
