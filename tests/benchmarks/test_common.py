"""Interleaved runs, and processes whose memory is their own."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common

HOLD = "import sys, time; held = bytearray(b'x') * int(sys.argv[1]); time.sleep(0.3); print(len(held))"
SIZE = 200_000_000


def test_the_peak_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    held = np.ones(SIZE // 8)
    assert common.run_process(["-c", HOLD, 1]).peak < SIZE / 2 < held.nbytes
    assert SIZE < common.run_process(["-c", HOLD, SIZE]).peak < 1.5 * SIZE


def test_what_a_process_took_and_printed(tmp_path: Path) -> None:
    run = common.run_process(["-c", HOLD, SIZE], interval=0.02, cwd=tmp_path)
    assert run.printed == f"{SIZE}\n" and 0.3 < run.seconds < 10
    assert len(run.samples) >= 5
    assert all(0 < seconds < run.seconds and 0 < size < 1.02 * run.peak for seconds, size in run.samples)
    assert max(size for _, size in run.samples) > SIZE
    assert run.samples == sorted(run.samples, key=lambda sample: sample[0])
    assert common.run_process(["-c", "import os; print(os.getcwd())"], cwd=tmp_path).printed.strip() == str(tmp_path)


def test_a_failing_process_is_one_line() -> None:
    with pytest.raises(ValueError, match="python -c raise OSError.'full'. failed: OSError: full"):
        common.run_process(["-c", "raise OSError('full')"])
    with pytest.raises(ValueError, match="python -c failed: exit code 3"):
        common.run_process(["-c", "\nraise SystemExit(3)"])


def test_every_variant_runs_once_a_round_in_different_orders() -> None:
    runs = list(common.interleaved("abcd", 5))
    assert [number for number, _ in runs] == [number for number in range(6) for _ in range(4)]
    rounds = ["".join(item for _, item in runs[start : start + 4]) for start in range(0, 24, 4)]
    assert all(sorted(order) == list("abcd") for order in rounds) and len(set(rounds)) > 1
    assert runs == list(common.interleaved("abcd", 5))


def test_the_warm_up_and_what_comes_before_a_run_are_not_measured() -> None:
    calls: list[str] = []
    works = {name: partial(calls.append, name) for name in "ab"}
    times = common.measure_interleaved(works, 3, before=lambda name: time.sleep(0.05))
    assert [sorted(calls[i : i + 2]) for i in range(0, 8, 2)] == [["a", "b"]] * 4
    assert [len(seconds) for seconds in times.values()] == [3, 3]
    assert all(0 <= one < 0.05 for seconds in times.values() for one in seconds)
    assert common.measure_interleaved({"a": lambda: 5}, 2, measure=lambda work: work()) == {"a": [5, 5]}


def test_ratios_are_of_each_round() -> None:
    assert common.ratios([1, 6, 3], [2, 2, 3]) == [0.5, 3, 1]
    with pytest.raises(ValueError):
        common.ratios([1, 2], [1])


def test_bars_for_every_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common.draw_bars({"seconds": {"a": [1.0, 2.0], "b": [3.0]}, "MB": {"a": [5.0], "b": [6.0]}}, "title", tmp_path / "bars.svg")
    svg = (tmp_path / "bars.svg").read_text()
    assert all(f"<!-- {text} -->" in svg for text in ("title", "seconds", "MB", "a", "b", "1.5", "3"))
    assert str(tmp_path / "bars.svg") in capsys.readouterr().out
