"""The figure of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.files import write_atomically
from studies.archive_plan.simulation import Job, Outcome


def draw_plan(outcomes: Mapping[Job, Outcome], path: Path) -> None:
    """Draw hours, and the shares of time in which driver and workers are busy, by cores; a line for each number of recordings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    hours, driver, workers = figure.subplots(1, 3)
    for recordings in dict.fromkeys(job.recordings for job in outcomes):
        runs = {job.machines * job.cores: outcome for job, outcome in outcomes.items() if job.recordings == recordings}
        label = f"{recordings:.0e} recordings"
        hours.plot(list(runs), [outcome.seconds / 3600 for outcome in runs.values()], ".-", label=label)
        driver.plot(list(runs), [100 * outcome.driver_busy for outcome in runs.values()], ".-")
        workers.plot(list(runs), [100 * outcome.workers_busy for outcome in runs.values()], ".-")
    hours.set_yscale("log")
    for axes, quantity in (
        (hours, "hours, planning included"),
        (driver, "driver busy, % of the time"),
        (workers, "workers busy, %"),
    ):
        axes.set_xscale("log")
        axes.set_xlabel("cores")
        axes.set_ylabel(quantity)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (driver, workers):
        axes.set_ylim(0, 105)
    workers.legend(*hours.get_legend_handles_labels(), frameon=False, fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=130))
