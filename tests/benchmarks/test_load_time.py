"""The benchmark on the smallest network; what the figures are is not tested."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from benchmarks import load_time
from benchmarks.common import BASELINE, ROOT, THIS, CheckoutProcess
from models.errors import UserError


def test_prints_seconds_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_time.main(["--model_name", "mn01_as", "--rounds", "1"]) == 0
    assert re.search(r"^mn01_as, \d+ MB: 0*[.\d]*[1-9]\d* s \(from", capsys.readouterr().out, re.MULTILINE)


def test_loads_are_compared_round_by_round() -> None:
    seconds = dict(zip(load_time.WAYS, (1.0, 2.0, 3.0, 4.0), strict=True))
    rows = load_time.compare({THIS: lambda way: 1.5 * seconds[way], BASELINE: lambda way: seconds[way]}, 2)
    assert [row[:4] for row in rows][1] == ("checkpoint, again", "3000.0", "2000.0", "1.500") and len(rows) == len(seconds)


def test_a_checkout_that_cannot_load_ends_the_comparison(forked_process: Callable[..., CheckoutProcess]) -> None:
    process = forked_process(ROOT, load_time.WORKER)
    with pytest.raises(UserError, match="could not do its task"):
        process({"name": "no model", "path": "missing.onnx", "way": "ONNX file"})
    process.close()
