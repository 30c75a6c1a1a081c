"""Run the engine for commands whose result is one file of another kind: the rows of all tasks, in the order of the plan."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.archive.engine import Work, run
from helpers.archive.inputs import Entry
from helpers.archive.output import MANIFEST, Output
from helpers.archive.plan import Plan
from helpers.archive.pool import Resources, started
from helpers.archive.report import Progress

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_TASKS = 16  # in a shard, whose rows are read at once: of mp3s of 10 s, 160 MB


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, or auto (else Ray is started on this machine)")


def rows(
    work: Work, entries: Iterable[Entry], folder: Path, task_recordings: int, resources: Resources
) -> Iterator[pa.RecordBatch]:
    """Do what of `entries` is not done yet, then yield the rows of all of them in order, some thousand at a time.

    `folder` keeps what is done, so that an interrupted run resumes; the plan in it counts, where there is one.
    """
    output = Output(folder)
    if output.manifest is None:  # which is written when the plan is complete
        shutil.rmtree(folder, ignore_errors=True)
        count = Plan(folder).extend(entries, SHARD_TASKS * task_recordings, task_recordings)
        output.write_json(MANIFEST, {"recordings": count})
    plan = Plan(folder)
    progress = Progress(output.manifest["recordings"])
    try:
        if len(output.complete()) < plan.num_shards:
            with started(resources) as pool:
                run(work, plan, output, pool, progress)
    finally:
        progress.close()
    yield from output.rows()
