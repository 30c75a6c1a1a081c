"""A run of an archive, event by event: workers that compute tasks, and one driver that hands them out one at a time."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from helpers.archive.engine import WAVE_TASKS, WAVE_TASKS_OF_WORKER
from helpers.archive.parcels import PARCEL_SECONDS, PART_SECONDS
from models.errors import UserError
from studies.archive_plan.costs import Costs

RATE = 32_000  # Hz, of the networks
SAMPLE_BYTES = 4  # between decoders and networks


@dataclass(frozen=True)
class Job:
    """A run."""

    recordings: int
    mean_seconds: float  # length of a recording
    machines: int
    cores: int  # of each machine
    format: str  # of `Costs.decode_seconds`
    model: str  # of `Costs.network_seconds`
    rows: str  # of `Costs.row_bytes`
    task_recordings: int = 64
    parcel_seconds: float = PARCEL_SECONDS  # of sound that goes from a decoder to a network at a time
    wave_tasks: int | None = None  # that the driver hands out before it waits for all of them; None: as archive.py chooses
    listing_seconds: float = 0.0  # of waiting for a store's list, a recording
    spread: float = 1.0  # standard deviation of the logarithm of a recording's length

    def __post_init__(self) -> None:
        if min(self.recordings, self.machines, self.cores, self.task_recordings) < 1 or self.mean_seconds <= 0:
            raise UserError("recordings, their length, machines, cores and recordings in a task must be above 0")

    @property
    def tasks(self) -> int:
        return -(-self.recordings // self.task_recordings)

    @property
    def wave(self) -> int:
        return self.wave_tasks or max(WAVE_TASKS, WAVE_TASKS_OF_WORKER * self.machines * self.cores)

    @property
    def parcels(self) -> int:
        """How many a task has."""
        return math.ceil(self.task_recordings * self.mean_seconds / self.parcel_seconds)

    @property
    def rows_per_recording(self) -> float:
        return max(1.0, self.mean_seconds / PART_SECONDS)


@dataclass(frozen=True)
class Outcome:
    """Of a run."""

    planning: float  # seconds in which the driver lists and plans, and no worker has anything to do
    working: float  # seconds from there to the last task's end
    workers_busy: float  # share of this time in which they compute
    driver_busy: float  # share of it in which the driver hands out tasks
    core_seconds: float  # of the workers
    driver_bytes: float  # by which the driver's memory grows

    @property
    def seconds(self) -> float:
        return self.planning + self.working


def recording_seconds(costs: Costs, job: Job) -> float:
    """CPU seconds of the workers for a recording of mean length, without those of its task."""
    sound = job.mean_seconds * (costs.decode_seconds[job.format] + costs.network_seconds[job.model])
    rows = job.rows_per_recording * (costs.write_seconds[job.rows] + costs.compact_seconds[job.rows])
    return costs.open_seconds + sound + rows


def overhead_seconds(costs: Costs, job: Job) -> float:
    """CPU seconds of the workers for a task, whatever is in it."""
    return costs.task_overhead_seconds + (job.parcels - 1) * costs.parcel_overhead_seconds


def task_seconds(costs: Costs, job: Job) -> float:
    """Mean CPU seconds of the workers for a task."""
    return overhead_seconds(costs, job) + job.task_recordings * recording_seconds(costs, job)


def driver_seconds(costs: Costs, job: Job) -> float:
    """CPU seconds of the driver for a task."""
    return costs.task_seconds + (job.parcels - 1) * costs.parcel_seconds


def largest_cluster(costs: Costs, job: Job) -> float:
    """Cores that one driver keeps busy: with more, they wait for it."""
    return task_seconds(costs, job) / driver_seconds(costs, job)


def simulate(costs: Costs, job: Job, seed: int = 0) -> Outcome:
    """Play a run through. The lengths of recordings are log-normal; tasks are computed in order, each by the next free core."""
    planning = costs.start_seconds + job.recordings * (costs.list_seconds + costs.plan_seconds + job.listing_seconds)
    durations = _durations(costs, job, np.random.default_rng(seed))
    driving = driver_seconds(costs, job)
    working = 0.0
    for first in range(0, job.tasks, job.wave):
        driver = working + costs.wave_seconds
        # The driver gives each core its first task, and then each core that becomes free the next one.
        free = [driver] * (job.machines * job.cores)
        for duration in durations[first : first + job.wave].tolist():
            driver = max(driver, free[0]) + driving
            heapq.heapreplace(free, driver + duration)
        working = max(free)
    core_seconds = float(durations.sum())
    return Outcome(
        planning=planning,
        working=working,
        workers_busy=core_seconds / (working * job.machines * job.cores),
        driver_busy=job.tasks * driving / working,
        core_seconds=core_seconds,
        driver_bytes=job.recordings * costs.held_bytes + job.tasks * costs.task_bytes,
    )


def _durations(costs: Costs, job: Job, random: np.random.Generator) -> np.ndarray:
    """Seconds of each task, (tasks,): those of its recordings, a log-normal sum, approximated by one log-normal.

    By the Fenton-Wilkinson method (Fenton, IRE Transactions on Communications Systems, 1960): mean and variance of the sum.
    """
    variance = np.log1p(np.expm1(job.spread**2) / job.task_recordings)
    factors = np.exp(random.normal(-variance / 2, np.sqrt(variance), job.tasks))  # mean 1
    return overhead_seconds(costs, job) + job.task_recordings * recording_seconds(costs, job) * factors
