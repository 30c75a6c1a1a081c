"""What the driver of an archive costs: listing, plan and comparison of recordings, and the engine with tasks that do nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.archive.engine import run
from helpers.archive.inputs import Entry, list_inputs
from helpers.archive.output import Output
from helpers.archive.parcels import Address, Counts, Parcel, Piece
from helpers.archive.plan import Plan
from helpers.archive.pool import RayPool, Resources, started

if TYPE_CHECKING:
    import pyarrow as pa

    from helpers.archive.engine import GivenUp, Staged

TASK_RECORDINGS, SHARD_RECORDINGS = 64, 4096
FOLDER_FILES = 1000
PARCELS = 5  # of tasks of several


@dataclass(frozen=True)
class Nothing:
    """Work that reads nothing and leaves the names of recordings; it cuts a task into parcels."""

    parcels: int = 1

    def decoder(self) -> Nothing:
        return self

    def network(self, threads: int | None = None) -> NoRows:
        return NoRows()

    def __call__(
        self, shard: int, task: int, entries: Sequence[Entry], *_: Staged | GivenUp
    ) -> Iterator[tuple[Parcel, np.ndarray]]:
        pieces = [Piece(entry.source, (number, 0)) for number, entry in enumerate(entries)]
        borders = [len(pieces) * number // self.parcels for number in range(self.parcels + 1)]
        for number, (start, end) in enumerate(pairwise(borders)):
            address = Address(shard, task, number, end == len(pieces))
            yield Parcel(address, pieces[start:end], (end, 0), 1), np.zeros(0, np.float32)


class NoRows:
    def __call__(self, parcel: Parcel, samples: np.ndarray) -> pa.Table:
        import pyarrow as pa

        errors = pa.nulls(len(parcel.pieces), pa.string())
        return pa.table({"source": [piece.source for piece in parcel.pieces], "error": errors, "error_kind": errors})


@dataclass(frozen=True)
class DriverCosts:
    """Seconds and bytes, as in `Costs`."""

    start_seconds: float
    wave_seconds: float
    task_seconds: float
    parcel_seconds: float
    task_bytes: float
    task_overhead_seconds: float
    parcel_overhead_seconds: float


def entries(count: int) -> Iterator[Entry]:
    """Yield recordings that do not exist, with paths of usual length."""
    for number in range(count):
        source = f"station-{number // FOLDER_FILES:05}/2024-05-17T04-30-00_{number:09}.flac"
        yield Entry(source, f"/archive/recordings/{source}", None, None, 480_000, str(1_700_000_000_000_000_000 + number))


def make_files(folder: Path, count: int) -> None:
    """Make empty files under the names of `entries`."""
    for entry in entries(count):
        path = folder / entry.source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def list_folder(folder: Path) -> int:
    """List all recordings below a folder; returns their number."""
    return sum(1 for _ in list_inputs(str(folder)))


def make_plan(folder: Path, count: int) -> Plan:
    plan = Plan(folder)
    plan.extend(entries(count), SHARD_RECORDINGS, TASK_RECORDINGS)
    plan.check_names()
    return plan


def drive(folder: Path, tasks: int) -> DriverCosts:
    """Run so many tasks of `Nothing` on this machine, half of the parcels as tasks of one, half as tasks of several."""
    begin = time.monotonic()
    with started(Resources()) as pool:
        start = time.monotonic()
        wave_seconds, task = drive_tasks(pool, folder / "one", 1, tasks)
        _, several = drive_tasks(pool, folder / "several", PARCELS, max(2, tasks // PARCELS))
    parcel = (several - task) / (PARCELS - 1)
    return DriverCosts(start - begin, wave_seconds, task[0], max(0.0, parcel[0]), max(0.0, task[2]), task[1], max(0.0, parcel[1]))


def drive_tasks(pool: RayPool, folder: Path, parcels: int, tasks: int) -> tuple[float, np.ndarray]:
    """Run tasks; return the seconds until the first parcel is done, and what a task costs.

    That is CPU seconds of the driver and of all others, and bytes: what was spent between a fifth of the parcels and the last one.
    """
    plan = make_plan(folder, tasks * TASK_RECORDINGS)
    last = parcels * tasks
    first = max(1, last // 5)
    samples: dict[int, np.ndarray] = {}  # by the number of parcels that are done
    processes = ProcessTree()
    done = 0
    begin, until_first = time.monotonic(), 0.0

    def follow(_: Counts) -> None:
        nonlocal done, until_first
        done += 1
        until_first = until_first or time.monotonic() - begin
        if done in (first, last) or done % max(1, last // 50) == 0:
            driver = time.process_time()
            samples[done] = np.array([driver, processes.seconds() - driver, resident()])

    run(Nothing(parcels), plan, Output(folder), pool, follow)
    return until_first, (samples[last] - samples[first]) / (last - first) * parcels


class ProcessTree:
    """CPU time of this process and of all its descendants; those that end count as they were last seen."""

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}

    def seconds(self) -> float:
        """Look at all processes; return the CPU seconds of those that were ever seen."""
        parents: dict[int, int] = {}
        ticks: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                values = path.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(values[1]), int(values[11]) + int(values[12])
        for pid in ticks:
            ancestor = pid
            while ancestor not in (0, os.getpid()):
                ancestor = parents.get(ancestor, 0)
            if ancestor:
                self._ticks[pid] = ticks[pid]
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
