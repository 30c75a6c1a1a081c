"""The benchmark against this very checkout; what the figures are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, reading
from benchmarks.reading import BASELINE, THIS, Task
from models.errors import UserError


def test_every_format_and_a_folder_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--baseline", str(common.ROOT), "--folder", str(common.RECORDINGS), "--clips", "2"]
    assert reading.main([*options, "--seconds", "0.2", "--rounds", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[4:]
    assert len(rows) == 2 * len(reading.SUBTYPES) + 1 and rows[-1].startswith("2 of recordings")
    for row in rows:
        assert all(float(word) > 0 for word in row.split()[-7:] if word != "to")


def test_times_are_compared_round_by_round() -> None:
    answers = {THIS: iter([(9, 9, [5]), (2, 4, [5]), (2, 2, [5])]), BASELINE: iter([(1, 1, [5]), (1, 2, [5]), (2, 2, [5])])}
    readers = {key: lambda task, answers=answers: next(answers) for key, answers in answers.items()}
    row = reading.compare(Task("x", (Path("x"),), False, 10), readers, 2)
    assert row == ("x", "300.00", "200.00", "1.500", "1.250 to 1.750", "1.500", "1.250 to 1.750")


def test_different_samples_are_an_error() -> None:
    readers = {THIS: lambda task: (1, 1, [5]), BASELINE: lambda task: (1, 1, [6])}
    with pytest.raises(UserError, match="different numbers"):
        reading.compare(Task("x", (Path("x"),), False, 1), readers, 1)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkout"):
        reading.main(["--baseline", str(tmp_path)])
