"""studies.archive_plan: the simulated run obeys arithmetic, and the command prints it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import UserError
from studies.archive_plan import __main__ as plan
from studies.archive_plan.costs import Costs, read_costs, write_costs
from studies.archive_plan.simulation import Job, driver_seconds, largest_cluster, simulate, task_seconds

COSTS = Costs(
    machine="none",
    list_seconds=1e-5, plan_seconds=1e-5, compare_seconds=1e-5, plan_bytes=100, held_bytes=1,
    task_seconds=0.01, parcel_seconds=0.002, task_bytes=10,
    start_seconds=5, wave_seconds=2, task_overhead_seconds=0.5, parcel_overhead_seconds=0.05, open_seconds=0.001,
    decode_seconds={"mp3": 1e-3}, network_seconds={"net": 9e-3},
    write_seconds={"tags": 1e-4}, compact_seconds={"tags": 1e-4}, sound_bytes={"mp3": 16_000}, row_bytes={"tags": 1000},
)  # fmt: skip
JOB = Job(64_000, 10.0, 1, 4, "mp3", "net", "tags", parcel_seconds=640, wave_tasks=1000)  # 1,000 tasks of 0.5 + 64 * 0.1012 s


def test_workers_are_the_limit_while_they_are_few() -> None:
    outcome = simulate(COSTS, JOB)
    assert task_seconds(COSTS, JOB) == pytest.approx(0.5 + 64 * 0.1012)
    assert outcome.core_seconds == pytest.approx(1000 * task_seconds(COSTS, JOB), rel=0.02)
    assert outcome.working == pytest.approx(2 + outcome.core_seconds / 4, rel=0.02)
    assert outcome.workers_busy > 0.98 and outcome.driver_busy < 0.01
    assert outcome.planning == pytest.approx(5 + 64_000 * 2e-5)
    twice = simulate(COSTS, replace(JOB, machines=2))
    assert twice.working == pytest.approx(outcome.working / 2, rel=0.03) and twice.planning == outcome.planning


def test_the_driver_is_the_limit_of_a_large_cluster_and_larger_tasks_help() -> None:
    limit = largest_cluster(COSTS, JOB)
    crowded = replace(JOB, recordings=6_400_000, cores=round(3 * limit), wave_tasks=100_000)
    outcome = simulate(COSTS, crowded)
    assert outcome.working == pytest.approx(100_000 * COSTS.task_seconds, rel=0.02)
    assert outcome.driver_busy > 0.98 and outcome.workers_busy == pytest.approx(1 / 3, rel=0.05)
    larger = replace(crowded, task_recordings=640, parcel_seconds=6400)
    assert largest_cluster(COSTS, larger) > 9 * limit
    assert simulate(COSTS, larger).working < 0.5 * outcome.working


def test_a_task_costs_the_driver_more_with_each_parcel() -> None:
    parcels = replace(JOB, parcel_seconds=300)
    assert (JOB.parcels, parcels.parcels) == (1, 3)
    assert driver_seconds(COSTS, parcels) == pytest.approx(0.01 + 2 * 0.002)
    assert task_seconds(COSTS, parcels) == pytest.approx(task_seconds(COSTS, JOB) + 2 * 0.05)


def test_cores_wait_at_the_end_of_a_wave_and_for_the_next_one() -> None:
    ten_waves = replace(JOB, recordings=640_000)
    one_wave = replace(ten_waves, wave_tasks=10_000)
    assert simulate(COSTS, ten_waves).working > simulate(COSTS, one_wave).working + 9 * COSTS.wave_seconds
    too_small = simulate(COSTS, replace(ten_waves, machines=500))  # 2,000 cores
    assert too_small.workers_busy < 0.5


def test_listing_a_store_and_long_recordings_cost_more() -> None:
    assert simulate(COSTS, replace(JOB, listing_seconds=1e-4)).planning == pytest.approx(5 + 64_000 * 1.2e-4)
    hour = replace(JOB, recordings=64, mean_seconds=3600.0, parcel_seconds=64 * 3600.0)
    assert hour.rows_per_recording == 6
    assert task_seconds(COSTS, hour) == pytest.approx(0.5 + 64 * (0.001 + 36 + 6 * 2e-4))


def test_impossible_runs_are_refused() -> None:
    with pytest.raises(UserError, match="above 0"):
        replace(JOB, machines=0)


def test_the_command_prints_a_run_for_each_size_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs, figure = tmp_path / "costs.json", tmp_path / "plan.png"
    write_costs(costs, COSTS)
    options = ["--costs", costs, "--model", "net", "--recordings", "1e3", "1e4", "--machines", 1, 5, "--figure", figure]
    assert plan.main([str(option) for option in options]) == 0
    out = capsys.readouterr().out
    runs = [line.split() for line in out.splitlines() if line.lstrip().startswith(("1e+03", "1e+04"))]
    assert [(row[0], row[2]) for row in runs] == [("1e+03", "1"), ("1e+03", "5"), ("1e+04", "1"), ("1e+04", "5")]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_costs_of_one_thousand_hours() -> None:
    row = plan.thousand_hours(COSTS, JOB, plan.Prices(core=1, store=1, network=1, reads=1, writes=1))
    recordings = 360_000
    assert float(row["all, core h"]) == pytest.approx(recordings / 64 * task_seconds(COSTS, JOB) / 3600, abs=0.01)
    assert float(row["cores, $"]) == pytest.approx(float(row["all, core h"]), abs=0.01)
    assert float(row["read, GB"]) == float(row["network, $"]) == pytest.approx(57.6)
    assert float(row["requests, $"]) == pytest.approx(360 + 360 / 64 + 0.36, abs=1e-3)
    assert float(row["written, GB"]) == pytest.approx(recordings * 1100 / 1e9)


def test_other_names_and_files_are_refused(tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    with pytest.raises(FileNotFoundError, match="measure them"):
        read_costs(costs)
    costs.write_text('{"machine": 1}')
    with pytest.raises(UserError, match="does not hold costs"):
        read_costs(costs)
    write_costs(costs, COSTS)
    assert read_costs(costs) == COSTS
    with pytest.raises(UserError, match="there are those of net"):
        plan.main(["--costs", str(costs), "--model", "other"])
    with pytest.raises(SystemExit):
        plan.main(["--recordings", "1.5"])
