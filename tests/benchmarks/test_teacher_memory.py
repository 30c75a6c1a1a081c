"""The benchmark with a file of 100 MiB: mapping it costs nothing, loading it does."""

from __future__ import annotations

import re

import pytest

from benchmarks import teacher_memory


@pytest.mark.slow
def test_three_trainings_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert teacher_memory.main(["--rows", "100000", "--clips", "16"]) == 0
    peaks = {name.strip(): int(peak) for name, peak in re.findall(r"([a-z ]+): peak +(\d+) MiB", capsys.readouterr().out)}
    assert list(peaks) == ["no teacher", "mapped", "loaded whole"]
    assert abs(peaks["mapped"] - peaks["no teacher"]) < 50
    assert peaks["loaded whole"] - peaks["no teacher"] > 70  # of 101 MiB
