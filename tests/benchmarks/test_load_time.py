"""The benchmark on the smallest network; what the figures are is not tested."""

from __future__ import annotations

import re

import pytest

from benchmarks import load_time


def test_prints_seconds_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_time.main(["--model_name", "mn01_as", "--rounds", "1"]) == 0
    assert re.search(r"^mn01_as, \d+ MB: 0*[.\d]*[1-9]\d* s \(from", capsys.readouterr().out, re.MULTILINE)
