"""studies.archive_plan.measure: slopes, the tasks that do nothing, and the file of costs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from helpers.archive.schema import Settings
from studies.archive_plan import driver, measure
from studies.archive_plan.costs import Costs, read_costs


def test_a_slope_leaves_out_what_happens_once() -> None:
    time = 0.0

    def work(count: int) -> None:
        nonlocal time
        time += 10 + 2 * count

    assert measure.slope(work, 1, 11, 3, clock=lambda: time) == pytest.approx(2)


def test_files_are_listed_and_planned(tmp_path: Path) -> None:
    driver.make_files(tmp_path / "files", 5)
    assert driver.list_folder(tmp_path / "files") == 5
    plan = driver.make_plan(tmp_path / "plan", 2 * driver.TASK_RECORDINGS + 1)
    assert (plan.num_shards, plan.tasks(0), len(plan.recordings(0, 2))) == (1, 3, 1)
    assert not list(plan.compare(driver.entries(2 * driver.TASK_RECORDINGS + 1)).new)


def test_tasks_that_do_nothing_leave_a_row_for_each_recording() -> None:
    entries = list(driver.entries(3))
    [(parcel, samples)] = driver.Nothing().decoder()(0, 0, entries, lambda *_: False)
    assert parcel.address.is_last and parcel.next_position == (3, 0) and not len(samples)
    assert driver.Nothing().network()(parcel, samples)["source"].to_pylist() == [entry.source for entry in entries]
    parcels = [parcel for parcel, _ in driver.Nothing(2)(0, 0, entries, lambda *_: False)]
    assert [(len(one.pieces), one.address.number, one.address.is_last) for one in parcels] == [(1, 0, False), (2, 1, True)]
    assert parcels[1].pieces[0].position == parcels[0].next_position


def test_cpu_time_and_memory_of_this_process() -> None:
    before = driver.tree_seconds()
    kept = np.ones(10_000_000)
    while driver.tree_seconds() < before + 0.05:
        kept.sum()
    assert driver.resident() > kept.nbytes


def test_rows_have_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SHARD_RECORDINGS", 8)
    rows = measure.rows_of(Settings(("mn10",), top_k=3))
    scores = np.array(rows["label_scores"].to_pylist())
    assert scores.shape == (8, 3) and (np.diff(scores) <= 0).all() and (scores > 0).all()
    assert measure.rows_of(Settings(("mn10",), embed=True))["embedding"].to_pylist()[0] != [0.0] * 960


def test_the_command_writes_all_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"list_seconds", "plan_seconds", "compare_seconds", "plan_bytes", "held_bytes"}
    monkeypatch.setattr(measure, "measure_listing", lambda *_: dict.fromkeys(names, 1.0))
    monkeypatch.setattr(measure, "measure_writing", lambda *_: ({"tags": 2.0},) * 3)
    monkeypatch.setattr(measure, "measure_formats", lambda *_: (3.0, {"mp3": 4.0}, {"mp3": 5.0}))
    monkeypatch.setattr(measure, "measure_networks", lambda *_: {"net": 6.0})
    monkeypatch.setattr(driver, "drive", lambda *_: driver.DriverCosts(*[7.0] * len(fields(driver.DriverCosts))))
    assert measure.main([str(tmp_path / "costs.json")]) == 0
    costs = read_costs(tmp_path / "costs.json")
    assert isinstance(costs, Costs)
    assert (costs.plan_bytes, costs.task_seconds, costs.open_seconds, costs.network_seconds) == (1.0, 7.0, 3.0, {"net": 6.0})
