"""What the stages of an archive cost, measured on one machine and kept as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from models.errors import UserError
from models.files import write_bytes


@dataclass(frozen=True)
class Costs:
    """CPU seconds of one core, and bytes. The driver's are serial: no second machine makes them shorter."""

    machine: str
    # Of the driver, for each recording
    list_seconds: float  # finding it in a folder of this machine
    plan_seconds: float  # writing it to the plan
    compare_seconds: float  # at a repeated run: finding out whether it has changed
    plan_bytes: float  # on the disk
    held_bytes: float  # by which the driver's memory grows while it lists, plans and compares
    # Of the driver, for each task
    task_seconds: float  # of one parcel
    parcel_seconds: float  # for each further parcel of it
    task_bytes: float  # by which its memory grows
    # Of the workers
    start_seconds: float  # elapsed, of Ray
    wave_seconds: float  # elapsed, until the first of a wave of tasks is done: processes, model
    task_overhead_seconds: float  # of Ray's processes and of a task of one empty parcel
    parcel_overhead_seconds: float  # for each further parcel of it
    open_seconds: float  # a recording
    decode_seconds: dict[str, float]  # by format: a second of sound, mono 32 kHz, to samples
    network_seconds: dict[str, float]  # by model and backend: a second of sound
    write_seconds: dict[str, float]  # by what is asked: a row, to the parcel of its task
    compact_seconds: dict[str, float]  # a row, from its parcel to its shard
    # Bytes
    sound_bytes: dict[str, float]  # by format: a second of sound as it is stored
    row_bytes: dict[str, float]  # by what is asked: a row in its shard


def write_costs(path: Path, costs: Costs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(asdict(costs), indent=2) + "\n").encode())


def read_costs(path: Path) -> Costs:
    """Read what `write_costs` wrote. Raises FileNotFoundError, and UserError for another file."""
    remedy = "measure them with python -m studies.archive_plan.measure"
    if not path.is_file():
        raise FileNotFoundError(f"{path}, the measured costs, not found; {remedy}")
    try:
        return Costs(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        names = ", ".join(field.name for field in fields(Costs))
        raise UserError(f"{path} does not hold costs ({error}), which are {names}; {remedy}") from error
