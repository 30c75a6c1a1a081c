"""Workers on Ray Data: three operators with back pressure between them, on this machine or on a cluster.

Rows are the unit, not Ray's blocks: each holds one `Parcel` and its samples, which the network reads where Ray's object store has
them. Only functions of this module import ray.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.archive.attempts import ATTEMPTS, Attempts, SharedAttempts, recordings_given_up
from helpers.archive.database import require
from helpers.archive.engine import TaskKey, Work, Written, staged_check
from helpers.archive.parcels import Counts, Parcel, Piece, counts
from helpers.devices import available_cores
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from helpers.archive.output import Output
    from helpers.archive.plan import Plan

# What Ray counts of a core for a worker, for each core that it has to itself: so little that the workers of a machine that is lost
# find room on the others. The operating system shares out what they really use.
NETWORK_SHARE, DECODE_SHARE, WRITE_SHARE = 0.4, 0.08, 0.01
NETWORKS_PER_WRITER = 4
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors arrive as exceptions
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_worker_niceness": "0",  # workers have the priority of other programs
    "RAY_task_events_report_interval_ms": "0",  # no history of tasks, which Ray would keep in memory
}
STORE_BYTES = 512 << 20  # of Ray's object store for each core, where it is started here


@dataclass(frozen=True)
class Resources:
    """Where the work is done."""

    address: str | None = None  # of a cluster that runs; None: Ray is started on this machine
    decoders: int | None = None  # workers; None: one for each core
    networks: int | None = None  # None: one for each core or, with GPUs, as many as fit
    gpus_per_network: float = 0.0
    cores: int | None = None  # of this machine to use; None: those that this process may


class RayPool:
    """The workers of a run."""

    def __init__(self, decoders: int, networks: int, threads: int, gpus_per_network: float) -> None:
        self.decoders, self.networks, self.threads, self.gpus_per_network = decoders, networks, threads, gpus_per_network
        self._compactions: list[Any] = []  # of shards, that Ray does

    def written(self, work: Work, plan: Plan, output: Output, tasks: Sequence[TaskKey]) -> Iterator[Written]:
        import ray
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = context.target_min_block_size = 1  # a block for each row
        actors = {"batch_format": "pyarrow", "batch_size": None, "zero_copy_batch": True}
        rows = ray.data.from_blocks([to_row(task) for task in tasks])
        rows = rows.map_batches(
            DecodeStep,
            fn_constructor_args=(work, plan, output, self._attempts),
            compute=ray.data.ActorPoolStrategy(size=min(self.decoders, len(tasks))),
            num_cpus=DECODE_SHARE,
            **actors,
        )
        rows = rows.map_batches(
            NetworkStep,
            fn_constructor_args=(work, self.threads, self._attempts),
            compute=ray.data.ActorPoolStrategy(size=self.networks),
            num_cpus=NETWORK_SHARE * self.threads,
            num_gpus=self.gpus_per_network or None,
            **actors,
        )
        rows = rows.map_batches(
            WriteStep,
            fn_constructor_args=(output,),
            compute=ray.data.ActorPoolStrategy(size=max(1, self.networks // NETWORKS_PER_WRITER)),
            num_cpus=WRITE_SHARE,
            **actors,
        )
        with _original_errors():
            for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from (written for written, _ in unpacked(batch))

    @cached_property
    def _attempts(self) -> SharedAttempts:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # other machines may be lost
        return SharedAttempts(ray.remote(num_cpus=0, scheduling_strategy=here)(Attempts).remote())

    def compact(self, output: Output, shard: int) -> None:
        import ray

        task = ray.remote(num_cpus=WRITE_SHARE)(type(output).compact)
        self._compactions.append(task.remote(output, shard))
        done, self._compactions = ray.wait(self._compactions, num_returns=len(self._compactions), timeout=0)
        with _original_errors():
            ray.get(done)

    def finish(self) -> None:
        import ray

        compactions, self._compactions = self._compactions, []
        with _original_errors():
            ray.get(compactions)


@contextmanager
def started(resources: Resources) -> Iterator[RayPool]:
    """Start Ray on this machine, or connect to a cluster, and end that again."""
    if resources.address and resources.address.startswith("ray://"):
        raise UserError(f"--address {resources.address} is that of Ray Client; run this on a machine of the cluster with host:port")
    os.environ.update(QUIET)
    require("ray.data")
    ray = require("ray")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    cores = resources.cores or available_cores()
    if resources.address is None:
        os.environ["RAY_worker_maximum_startup_concurrency"] = str(8 * max(2, cores))  # more are no warning: they share cores
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE_BYTES * max(2, cores)}
    try:
        with _own_signals(handlers), _silent():
            ray.init(resources.address or "local", **options)  # never a cluster that happens to run
    except Exception as error:  # of that very class where Ray does not start in time
        where = f"the Ray cluster at {resources.address} cannot be reached" if resources.address else "Ray cannot be started here"
        raise UserError(f"{where}: {error}") from error
    try:
        yield _pool(resources, ray.cluster_resources())
    finally:
        ray.shutdown()


def _pool(resources: Resources, found: dict[str, float]) -> RayPool:
    """Share out the cores and GPUs of a cluster."""
    cores, gpus = max(1, int(found.get("CPU", 1))), found.get("GPU", 0.0)
    share = resources.gpus_per_network
    if share > gpus:
        raise UserError(f"--gpus_per_network is {share:g}, but Ray finds {gpus:g} GPUs; leave it out to compute on CPUs")
    if share > 1 and share % 1:
        raise UserError(f"--gpus_per_network is {share:g}; give a share of one GPU, or a whole number of them")
    fitting = int(gpus) * int(1 / share) if 0 < share <= 1 else int(gpus / share) if share else cores
    decoders, networks = resources.decoders or cores, resources.networks or max(1, fitting)
    threads = 1 if share else max(1, cores // networks)
    if (needed := decoders * DECODE_SHARE + networks * threads * NETWORK_SHARE + WRITE_SHARE) > cores:  # it would wait for ever
        raise UserError(
            f"{decoders} decoders and {networks} networks need {needed:.2f} cores of Ray, which finds {cores}; "
            "lower --decoders or --networks"
        )
    return RayPool(decoders, networks, threads, share)


@contextmanager
def _own_signals(handlers: dict[int, Any]) -> Iterator[None]:
    """Ctrl-C and SIGTERM are what they were, whatever the block makes of them."""
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what libraries written in C print from standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class DecodeStep:
    """A worker that decodes. Where a task ended its worker, each of its recordings counts attempts."""

    def __init__(self, work: Work, plan: Plan, output: Output, attempts: Attempts | SharedAttempts) -> None:
        self._decoder, self._plan, self._output, self._attempts = work.decoder(), plan, output, attempts

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        with _text_kept():
            for task, _ in unpacked(batch):
                key = task.shard, task.task
                entries = self._plan.recordings(*key)
                is_first = self._attempts.begin(key) == 1
                given_up = (lambda _: None) if is_first else recordings_given_up(self._attempts, key, entries)
                for parcel, samples in self._decoder(*key, entries, staged_check(self._output, task), given_up):
                    yield to_row(parcel, samples)
                if is_first:  # else the task may be done again, and then without what was given up
                    self._attempts.end(key)


class NetworkStep:
    """A worker that computes."""

    def __init__(self, work: Work, threads: int, attempts: Attempts | SharedAttempts) -> None:
        self._network, self._attempts = work.network(threads), attempts

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        with _text_kept():
            yield from self._rows(batch)

    def _rows(self, batch: pa.Table) -> Iterator[pa.Table]:
        for parcel, content in unpacked(batch):
            if parcel.is_staged:
                yield to_row(_written(parcel, Counts(staged=counts(parcel).recordings)))
                continue
            samples = np.frombuffer(content, np.float32)
            if self._attempts.begin(parcel.address) > ATTEMPTS:
                why = f"computing it, or a recording next to it, ended the worker {ATTEMPTS} times; leave it out"
                parcel, samples = replace(parcel, pieces=[_failed(piece, "worker", why) for piece in parcel.pieces]), samples[:0]
            before = time.process_time()
            parcel, table = self._computed(parcel, samples)
            done = counts(parcel)
            done.network_seconds = time.process_time() - before
            self._attempts.end(parcel.address)
            yield to_row(_written(parcel, done), _to_ipc(table))

    def _computed(self, parcel: Parcel, samples: np.ndarray) -> tuple[Parcel, pa.Table]:
        """Return the rows of a parcel; where they cannot be computed, piece by piece, with failures in place of some."""
        import pyarrow as pa

        try:
            return parcel, self._network(parcel, samples)
        except UserError:  # such as sound that makes scores that are no numbers
            pieces, tables = [], []
            for piece, own in zip(parcel.pieces, parcel.waveforms(samples), strict=True):
                try:
                    tables.append(self._network(replace(parcel, pieces=[piece]), own))
                except UserError as error:
                    piece = _failed(piece, "network", str(error))
                    tables.append(self._network(replace(parcel, pieces=[piece]), own[:0]))
                pieces.append(piece)
            return replace(parcel, pieces=pieces), pa.concat_tables(tables)


def _failed(piece: Piece, kind: str, why: str) -> Piece:
    """Return the failure that a piece becomes; one that is a failure stays."""
    if piece.error is not None:
        return piece
    error = f"{piece.source}: {' '.join(why.split())}"
    return replace(piece, start=None, end=None, samples=0, warnings=(), error=error, error_kind=kind)


def _written(parcel: Parcel, done: Counts) -> Written:
    position = parcel.pieces[0].position if parcel.pieces else parcel.next_position
    return Written(parcel.address, position, parcel.next_position, done)


class WriteStep:
    """A worker that writes the rows of parcels."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        with _text_kept():
            for written, content in unpacked(batch):
                if len(content):
                    before = time.process_time()
                    self._output.write_parcel(written.address, _from_ipc(content))
                    written.counts.write_seconds = time.process_time() - before
                yield to_row(written)


def to_row(about: Any, content: np.ndarray | pa.Buffer | None = None) -> pa.Table:
    """Return a row of what goes through Ray: an object, and many bytes that are not copied."""
    import pyarrow as pa

    content = pa.py_buffer(b"" if content is None else content)
    offsets = pa.py_buffer(np.array([0, content.size], np.int64))
    column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, content])
    return pa.table({"about": pa.array([pickle.dumps(about)], pa.binary()), "content": column})


def unpacked(batch: pa.Table) -> Iterator[tuple[Any, memoryview]]:
    for about, content in zip(batch["about"], batch["content"], strict=True):
        yield pickle.loads(about.as_py()), memoryview(content.as_buffer())


def _to_ipc(table: pa.Table) -> pa.Buffer:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _from_ipc(content: memoryview) -> pa.Table:
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        return reader.read_all()


@contextmanager
def _text_kept() -> Iterator[None]:
    """Keep the text of a worker's error: Ray Data adds remarks to it."""
    try:
        yield
    except (UserError, OSError) as error:
        error.text = str(error)
        raise


@contextmanager
def _original_errors() -> Iterator[None]:
    """Raise what a worker raised, not what Ray makes of it."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while isinstance(cause, ray.exceptions.RayError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise UserError(f"Ray could not continue: {error}; the same command resumes") from error
        if not hasattr(cause, "text"):
            raise cause from None
        raise (OSError if isinstance(cause, OSError) else UserError)(cause.text) from None
