"""The engine: the tasks of a plan go through decoding, network and writing, until every shard is complete.

    driver: (shard, task) -> decode -> network -> write -> driver: counts; whole shards

`helpers.archive.pool` lets Ray Data do it. All that a worker leaves behind is a file of staging/, which has its name when it is
complete, so that a worker, a machine or the driver may end at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from helpers.archive.parcels import Address, Counts, Parcel, Piece
from models.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from datasets.audio import AudioError
    from helpers.archive.inputs import Entry
    from helpers.archive.output import Output
    from helpers.archive.plan import Plan

# Tasks that Ray gets at once: what it holds in memory about tasks grows with their number, and workers wait for the last of them.
WAVE_TASKS, WAVE_TASKS_OF_WORKER = 4096, 64

Staged = Callable[[int, list[Piece]], bool]  # whether an earlier run wrote a parcel, by its number and its pieces
GivenUp = Callable[[int], "AudioError | None"]  # of a recording, by its number in the task: why it is not to be read again


class Work(Protocol):
    """What is done with recordings; it is sent to every worker."""

    def decoder(self) -> Callable[[int, int, Sequence[Entry], Staged, GivenUp], Iterator[tuple[Parcel, np.ndarray]]]:
        """Return what yields the parcels of a task: (shard, task, recordings, `Staged`, `GivenUp`) -> parcels with their samples.

        It asks `GivenUp` before it reads a recording; one that is given up is a failure.
        """

    def network(self, threads: int) -> Callable[[Parcel, np.ndarray], pa.Table]:
        """Return what makes rows of a parcel."""


@dataclass(frozen=True)
class TaskKey:
    """A task, and its parcels that an earlier run wrote."""

    shard: int
    task: int
    staged: frozenset[Address] = frozenset()


@dataclass(frozen=True)
class Written:
    """What the driver learns about a parcel."""

    address: Address
    position: tuple[int, int]  # where it begins
    next_position: tuple[int, int]
    counts: Counts


class Pool(Protocol):
    """Workers: `helpers.archive.pool.RayPool`, or this process."""

    decoders: int  # workers

    def written(self, work: Work, plan: Plan, output: Output, tasks: Sequence[TaskKey]) -> Iterator[Written]:
        """Compute tasks; yield their parcels, in any order, when they are written."""

    def compact(self, output: Output, shard: int) -> None:
        """Begin to make a file of data/ of the parcels of a shard."""

    def finish(self) -> None:
        """Wait for all that `compact` began."""


@dataclass
class TaskState:
    """The parcels of a task that are written."""

    spans: dict[int, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)  # by number: begin and end
    last: int | None = None

    def add(self, written: Written) -> None:
        self.spans[written.address.number] = (written.position, written.next_position)
        if written.address.is_last:
            self.last = written.address.number

    @property
    def is_written(self) -> bool:
        return self.last is not None and len(self.spans) > self.last

    @property
    def is_whole(self) -> bool:
        """Whether each parcel begins where the one before it ends.

        It does not if a task was decoded twice, as its worker was killed, and a recording could be read in one attempt only.
        """
        spans = [((0, 0), (0, 0)), *(self.spans[number] for number in sorted(self.spans))]
        return all(end == begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


def run(work: Work, plan: Plan, output: Output, pool: Pool, follow: Callable[[Counts], object]) -> Counts:
    """Do what of a plan is not done yet; return what this run did, which `follow` gets piece by piece.

    Errors of workers are raised as they are, such as the OSError of a full disk. What is done then is kept.
    """
    total = Counts()
    for shards in _waves(plan, output, follow, max(WAVE_TASKS, WAVE_TASKS_OF_WORKER * pool.decoders)):
        for shard, tasks in shards.items():
            if not tasks:  # an earlier run ended before it could make the file
                pool.compact(output, shard)
        tasks = [task for tasks in shards.values() for task in tasks]
        while tasks:
            repeated = []
            open_tasks = Counter(task.shard for task in tasks)
            resumed = {(task.shard, task.task) for task in tasks if task.staged}
            states = {(task.shard, task.task): TaskState() for task in tasks}
            for written in pool.written(work, plan, output, tasks):
                total.add(written.counts)
                follow(written.counts)
                shard, task = key = written.address.shard, written.address.task
                states[key].add(written)
                if not states[key].is_written:
                    continue
                state = states.pop(key)
                if state.is_whole:
                    if key in resumed:
                        _remove_stale(output, *key, state.last)
                    open_tasks[shard] -= 1
                    if not open_tasks[shard]:
                        pool.compact(output, shard)
                else:
                    output.remove_parcels(shard, task)
                    repeated.append(TaskKey(shard, task))
            tasks = repeated
        pool.finish()
        if missing := [shard for shard in shards if not output.is_complete(shard)]:
            raise UserError(f"{len(missing)} shards are not complete, the first one is {missing[0]}; the same command resumes")
    return total


def _waves(plan: Plan, output: Output, follow: Callable[[Counts], object], most: int) -> Iterator[dict[int, list[TaskKey]]]:
    """Yield shards that are not complete, some at a time, each with the tasks that are left of it."""
    wave: dict[int, list[TaskKey]] = {}
    for shard in range(plan.num_shards):
        if output.is_complete(shard):
            follow(Counts(staged=plan.recordings_of(shard)))
            continue
        wave[shard] = list(_unfinished(plan, output, shard, follow))
        if sum(map(len, wave.values())) >= most:
            yield wave
            wave = {}
    if wave:
        yield wave


def _unfinished(plan: Plan, output: Output, shard: int, follow: Callable[[Counts], object]) -> Iterator[TaskKey]:
    staged: dict[int, list[Address]] = {}  # the parcels of each task
    addresses = output.parcels_of(shard)
    numbers = Counter((address.task, address.number) for address in addresses)
    unclear = {task for (task, _), count in numbers.items() if count > 1}  # a run ended before it removed the stale ones
    for task in unclear:
        output.remove_parcels(shard, task)
    for address in sorted(addresses):
        if address.task not in unclear:
            staged.setdefault(address.task, []).append(address)
    for task in range(plan.tasks(shard)):
        parcels = staged.get(task, [])
        if parcels and parcels[-1].is_last and len(parcels) == parcels[-1].number + 1:
            found = _without_repeats(source for parcel in parcels for source in output.sources(parcel))
            if found == [entry.source for entry in plan.recordings(shard, task)]:
                follow(Counts(staged=len(found)))
                continue
        yield TaskKey(shard, task, frozenset(parcels))


def _remove_stale(output: Output, shard: int, task: int, last: int) -> None:
    """Remove the parcels of an earlier run that cut a task in another way, as where a recording could not be read then."""
    for parcel in output.parcels_of(shard):
        if parcel.task == task and (parcel.number > last or parcel.is_last != (parcel.number == last)):
            output.folder.remove(parcel.name)


def _without_repeats(sources: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(sources))


def staged_check(output: Output, task: TaskKey) -> Staged:
    """Return whether parcels of a task are staged: those from the first on whose recordings differ are not."""
    addresses = {address.number: address for address in task.staged}

    def is_staged(number: int, pieces: list[Piece]) -> bool:
        sources = _without_repeats(piece.source for piece in pieces)
        if number in addresses and _without_repeats(output.sources(addresses[number])) != sources:
            addresses.clear()
        return number in addresses

    return is_staged
