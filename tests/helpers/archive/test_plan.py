"""The plan: shards and tasks, and how an input that changed is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from helpers.archive import plan as plan_module
from helpers.archive.inputs import Entry
from helpers.archive.plan import Plan
from models.errors import UserError


def entries(*names: str, size: int = 10, stamp: str = "1") -> list[Entry]:
    return [Entry(name, f"/in/{name}", None, None, size, stamp) for name in names]


TEN = entries(*"abcdefghij")
ODD = [
    Entry("\\udcff", os.fsdecode(b"/in/\xff"), None, None, 0, ""),
    Entry("x.tar/a\nb", "s3://bucket/x.tar", os.fsdecode(b"a\n\xfeb"), 1 << 40, 1 << 41, "etag"),
    Entry("x.parquet/ü", "/x.parquet", "ü", None, 5, "2", (1, 2, 3, 4, 5, 6)),
]


@pytest.fixture(params=["here", "store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path) if request.param == "here" else "memory://archive-plan"
    fsspec.filesystem("memory").store.clear()


def planned(output: str, recordings: list[Entry]) -> Plan:
    plan = Plan(output)
    assert plan.extend(recordings, 4, 2) == len(recordings)
    return plan


def test_shards_and_tasks_are_runs_of_recordings(output: str) -> None:
    planned(output, TEN)
    plan = Plan(output)  # as a worker sees it
    assert (plan.num_shards, plan.num_recordings) == (3, 10)
    assert [plan.tasks(shard) for shard in range(3)] == [2, 2, 1]
    assert plan.recordings(1, 1) == TEN[6:8]
    assert list(plan) == TEN


def test_large_recordings_make_small_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "TASK_BYTES", 100)
    plan = Plan(tmp_path)
    plan.extend([*entries("a", "b", "c", size=40), *entries("d", size=1000), *entries("e", "f", size=0)], 6, 4)
    assert [[entry.source for entry in plan.recordings(0, task)] for task in range(plan.tasks(0))] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e", "f"],
    ]


def test_names_of_all_kinds_come_back_as_they_were(output: str) -> None:
    assert list(planned(output, ODD)) == ODD


def test_each_shard_is_written_as_soon_as_it_is_full(tmp_path: Path) -> None:
    seen = []

    def listing() -> Iterator[Entry]:
        for entry in TEN:
            seen.append(Plan(tmp_path).num_shards)
            yield entry

    Plan(tmp_path).extend(listing(), 4, 2)
    assert seen == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_an_input_that_is_the_same_has_no_changes(output: str) -> None:
    changes = planned(output, TEN).compare(iter(TEN))
    changes.check()
    assert list(changes.new) == []


def test_the_order_of_an_input_does_not_matter(output: str) -> None:
    changes = planned(output, TEN + ODD).compare(reversed(TEN + ODD))
    changes.check()
    assert list(changes.new) == []


@pytest.mark.parametrize("position", [0, 5, 10])
def test_new_recordings_become_new_shards(output: str, position: int) -> None:
    new = [*entries("x", "y"), *ODD]
    longer = [*TEN[:position], *new, *TEN[position:]]
    plan = planned(output, TEN)
    changes = plan.compare(iter(longer))
    changes.check()
    plan.extend(changes.new, 4, 2)
    plan = Plan(output)
    assert list(plan) == TEN + new
    changes = plan.compare(iter(longer))
    changes.check()
    assert list(changes.new) == []


def test_a_listing_that_was_interrupted_continues(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Entry]:
        yield from TEN[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Plan(tmp_path).extend(interrupted(), 4, 2)
    plan = Plan(tmp_path)
    assert list(plan) == TEN[:8]
    plan.extend(plan.compare(iter(TEN)).new, 4, 2)
    assert list(Plan(tmp_path)) == TEN


@pytest.mark.parametrize("field", ["size", "stamp", "address"])
def test_recordings_that_changed_are_named(output: str, field: str) -> None:
    changed = [
        entry._replace(**{field: {"size": 11, "stamp": "2", "address": "/else"}[field]}) if entry.source in "cg" else entry
        for entry in TEN
    ]
    changes = planned(output, TEN).compare(iter(changed))
    assert (changes.changed, changes.num_changed, changes.num_gone) == (["c", "g"], 2, 0)
    with pytest.raises(UserError, match="c, g"):
        changes.check()


def test_recordings_that_are_gone_are_named(output: str) -> None:
    changes = planned(output, TEN).compare(iter(TEN[5:] + ODD))
    assert (changes.gone, changes.num_gone, changes.num_changed) == (["a", "b", "c"], 5, 0)
    with pytest.raises(UserError, match="a, b, c"):
        changes.check()
    with pytest.raises(UserError, match="a, b, c"):
        planned(output, []).compare(iter([])).check()


def test_names_that_are_there_twice_are_refused(output: str) -> None:
    planned(output, TEN).check_names()
    with pytest.raises(UserError, match="c"):
        planned(output, entries("c")).check_names()


def test_a_damaged_plan_is_one_line_that_names_it(tmp_path: Path) -> None:
    planned(str(tmp_path), TEN)
    (tmp_path / "plan/shard-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="shard-000001"):
        list(Plan(tmp_path))
