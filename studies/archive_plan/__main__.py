"""Plan a run of archive.py: cores, network, storage, hours and money for 10^5 to 10^8 recordings, and where it would break.

    python -m studies.archive_plan --costs costs.json --figure plan.png

Costs come from `python -m studies.archive_plan.measure`; without --costs, those of docs/archive_plan.md count. Each run is
simulated: workers compute tasks, and one driver hands these out. Prices are assumptions, not offers: rounded list prices of large
clouds in 2025, without discounts; give your own. A core is one like the measured one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from benchmarks.common import print_table
from helpers import cli
from helpers.archive.parcels import PARCEL_SECONDS
from models.errors import UserError
from studies.archive_plan import simulation
from studies.archive_plan.costs import Costs, read_costs
from studies.archive_plan.figure import draw_plan
from studies.archive_plan.simulation import Job, Outcome, driver_seconds, largest_cluster, recording_seconds, simulate, task_seconds

COSTS = Path(__file__).with_name("costs.json")
GB = 1e9  # bytes
HOUR = 3600  # seconds
TASK_SIZES = ((64, 300.0), (640, 300.0), (64, 600.0), (640, 3000.0))  # recordings, seconds of a parcel


@dataclass(frozen=True)
class Prices:
    core: float  # an hour of one core
    store: float  # a GB in a store for a month
    network: float  # a GB read from the store
    reads: float  # 1,000 reading requests
    writes: float  # 1,000 writing or listing requests


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies.archive_plan", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--costs", type=Path, default=COSTS, metavar="FILE", help="measured costs, JSON")
    parser.add_argument(
        "--recordings", type=whole, nargs="+", default=[10**5, 10**6, 10**7, 10**8], help="numbers of recordings, such as 1e6"
    )
    parser.add_argument("--mean_seconds", type=cli.positive_float, default=10.0, help="mean length of a recording")
    parser.add_argument("--machines", type=cli.positive_int, nargs="+", default=[1, 10, 100, 1000], help="numbers of machines")
    parser.add_argument("--cores", type=cli.positive_int, default=16, help="cores of each machine")
    parser.add_argument("--format", default="mp3", help="format of the recordings, one of the costs")
    parser.add_argument("--model", default="mn10 torch", help="model and backend, one of the costs")
    parser.add_argument("--rows", default="tags", help="what is written, one of the costs")
    parser.add_argument("--task_recordings", type=cli.positive_int, default=64, help="recordings in a task")
    parser.add_argument("--parcel_seconds", type=cli.positive_float, default=PARCEL_SECONDS, help="sound in a parcel of a task")
    parser.add_argument(
        "--wave_tasks", type=cli.positive_int, help="tasks that the driver waits for at a time (None: as archive.py)"
    )
    parser.add_argument(
        "--list_request", type=cli.non_negative_float, default=0.15,
        help="seconds that a store takes to list 1,000 recordings (0: a folder)",
    )  # fmt: skip
    for name, price, meaning in (
        ("core", 0.04, "an hour of one core"),
        ("store", 0.023, "a GB in the store for a month"),
        ("network", 0.0, "a GB read from the store; 0 within one region"),
        ("reads", 0.0004, "1,000 reading requests"),
        ("writes", 0.005, "1,000 writing or listing requests"),
    ):
        parser.add_argument(f"--{name}_price", type=cli.non_negative_float, default=price, help=f"dollars for {meaning}")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the lengths of the recordings")
    parser.add_argument("--figure", type=cli.figure_path, help="draw hours by machines into this file")
    return parser


def whole(text: str) -> int:
    """Parse a number such as 1e6."""
    try:
        if (value := float(text)).is_integer() and 1 <= value <= 1e12:
            return int(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1e12, not {text!r}")


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    costs = read_costs(args.costs)
    for option, known in (("format", costs.decode_seconds), ("model", costs.network_seconds), ("rows", costs.row_bytes)):
        if getattr(args, option) not in known:
            raise UserError(f"--{option} {getattr(args, option)} has no measured costs; there are those of {', '.join(known)}")
    prices = Prices(args.core_price, args.store_price, args.network_price, args.reads_price, args.writes_price)
    kind = {"mean_seconds": args.mean_seconds, "format": args.format, "model": args.model, "rows": args.rows}
    tasks = {"task_recordings": args.task_recordings, "parcel_seconds": args.parcel_seconds, "wave_tasks": args.wave_tasks}
    jobs = [
        Job(recordings=recordings, machines=machines, cores=args.cores, listing_seconds=args.list_request / 1000, **kind, **tasks)
        for recordings, machines in product(args.recordings, args.machines)
    ]
    job = jobs[0]
    print(f"costs of {costs.machine}\nrecordings of {job.mean_seconds:g} s, {job.format}; rows: {job.rows}")
    print_costs(costs, job)
    models = [replace(job, model=model) for model in costs.network_seconds]
    print_rows("1,000 hours of sound, without the driver", [thousand_hours(costs, one, prices) for one in models])
    outcomes = {one: simulate(costs, one, args.seed) for one in jobs}
    print_rows(f"runs with {job.model}", [run_row(one, outcome) for one, outcome in outcomes.items()])
    print_rows(
        "what one driver can do",
        [limits_row(costs, replace(job, task_recordings=count, parcel_seconds=seconds)) for count, seconds in TASK_SIZES],
    )
    largest = replace(job, recordings=max(args.recordings))
    print_rows(f"the driver and the plan at {largest.recordings:.0e} recordings", list(driver_rows(costs, largest)))
    if args.figure:
        draw_plan(outcomes, args.figure)
        print(f"\nfigure: {args.figure}")
    return 0


def print_rows(title: str, rows: Sequence[dict[str, object]]) -> None:
    print_table(title, list(rows[0]), [list(row.values()) for row in rows])


def print_costs(costs: Costs, job: Job) -> None:
    rows = [
        ("driver", "list, a recording", costs.list_seconds),
        ("driver", "plan, a recording", costs.plan_seconds),
        ("driver", "compare at a repeated run, a recording", costs.compare_seconds),
        ("driver", "a task of one parcel", costs.task_seconds),
        ("driver", "a further parcel", costs.parcel_seconds),
        ("worker", "overhead of a task of one parcel", costs.task_overhead_seconds),
        ("worker", "overhead of a further parcel", costs.parcel_overhead_seconds),
        ("worker", "open, a recording", costs.open_seconds),
        *(("worker", f"decode {name}, a second of sound", value) for name, value in costs.decode_seconds.items()),
        *(("worker", f"network {name}, a second of sound", value) for name, value in costs.network_seconds.items()),
        *(("worker", f"write {name}, a row", value) for name, value in costs.write_seconds.items()),
        *(("worker", f"compact {name}, a row", value) for name, value in costs.compact_seconds.items()),
    ]
    print_table("measured, CPU seconds", ("who", "what", "microseconds"), [(*row, f"{1e6 * value:.4g}") for *row, value in rows])
    sizes = [
        ("plan, a recording", costs.plan_bytes),
        ("driver's memory, a recording", costs.held_bytes),
        ("driver's memory, a task", costs.task_bytes),
        *((f"{name}, a second of sound", value) for name, value in costs.sound_bytes.items()),
        *((f"row of {name}", value) for name, value in costs.row_bytes.items()),
    ]
    print_table("measured, bytes", ("what", "bytes"), [(name, f"{value:.4g}") for name, value in sizes])


def thousand_hours(costs: Costs, job: Job, prices: Prices) -> dict[str, object]:
    """Cores, network, storage and money for 1,000 hours of sound, wherever it is computed."""
    sound = 1000 * HOUR
    recordings = sound / job.mean_seconds
    core_hours = recordings / job.task_recordings * task_seconds(costs, job) / HOUR
    read = sound * costs.sound_bytes[job.format] / GB
    written = recordings * (job.rows_per_recording * costs.row_bytes[job.rows] + costs.plan_bytes) / GB
    parcels = recordings / job.task_recordings * job.parcels
    requests = recordings / 1000 * prices.reads + (parcels + recordings / 1000) / 1000 * prices.writes
    return {
        "model": job.model,
        "decode, core h": f"{sound * costs.decode_seconds[job.format] / HOUR:.2f}",
        "network, core h": f"{sound * costs.network_seconds[job.model] / HOUR:.2f}",
        "all, core h": f"{core_hours:.2f}",
        "read, GB": f"{read:.1f}",
        "samples, GB": f"{sound * simulation.RATE * simulation.SAMPLE_BYTES / GB:.0f}",
        "written, GB": f"{written:.3f}",
        "cores, $": f"{core_hours * prices.core:.3f}",
        "network, $": f"{read * prices.network:.3f}",
        "requests, $": f"{requests:.3f}",
        "rows a month, $": f"{written * prices.store:.4f}",
    }


def run_row(job: Job, outcome: Outcome) -> dict[str, object]:
    return {
        "recordings": f"{job.recordings:.0e}",
        "hours of sound": f"{job.recordings * job.mean_seconds / HOUR:.0f}",
        "machines": job.machines,
        "hours": f"{outcome.seconds / HOUR:.2f}",
        "of them planning": f"{outcome.planning / HOUR:.2f}",
        "workers busy": f"{100 * outcome.workers_busy:.0f}%",
        "driver busy": f"{100 * outcome.driver_busy:.1f}%",
        "driver's memory grows, MB": f"{outcome.driver_bytes / 1e6:.1f}",
        "core hours paid": f"{outcome.seconds * job.machines * job.cores / HOUR:.0f}",
    }


def limits_row(costs: Costs, job: Job) -> dict[str, object]:
    return {
        "recordings in a task": job.task_recordings,
        "seconds in a parcel": f"{job.parcel_seconds:.0f}",
        "parcels": job.parcels,
        "samples of one, MB": f"{job.parcel_seconds * simulation.RATE * simulation.SAMPLE_BYTES / 1e6:.0f}",
        "core seconds of a task": f"{task_seconds(costs, job):.2f}",
        "driver's seconds": f"{driver_seconds(costs, job):.4f}",
        "cores kept busy": f"{largest_cluster(costs, job):.0f}",
        "recordings an hour": f"{HOUR / driver_seconds(costs, job) * job.task_recordings:.2e}",
    }


def driver_rows(costs: Costs, job: Job) -> list[dict[str, object]]:
    """The serial part at a number of recordings."""
    steps = {
        "list": costs.list_seconds + job.listing_seconds,
        "plan": costs.plan_seconds,
        "compare at a repeated run": costs.list_seconds + job.listing_seconds + costs.compare_seconds,
        "hand out tasks": driver_seconds(costs, job) / job.task_recordings,
    }
    rows = [{"what": name, "amount": f"{job.recordings * seconds / HOUR:.2f} h"} for name, seconds in steps.items()]
    return [
        *rows,
        {"what": "plan", "amount": f"{job.recordings * costs.plan_bytes / GB:.1f} GB"},
        {"what": "rows", "amount": f"{job.recordings * job.rows_per_recording * costs.row_bytes[job.rows] / GB:.1f} GB"},
        {"what": "tasks", "amount": f"{job.tasks}"},
        {
            "what": "driver's memory grows",
            "amount": f"{(job.recordings * costs.held_bytes + job.tasks * costs.task_bytes) / 1e6:.0f} MB",
        },
        {"what": "core hours", "amount": f"{job.recordings * recording_seconds(costs, job) / HOUR:.0f}"},
    ]


if __name__ == "__main__":
    cli.run(main)
