"""The benchmark against this very checkout; what the figures are is not tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import common, eager_speed
from benchmarks.eager_speed import BASELINE, THIS
from models.errors import UserError


def test_evaluation_and_training_are_compared(
    forked_process: Callable[..., common.CheckoutProcess], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager_speed, "CheckoutProcess", forked_process)
    options = ["--baseline", str(common.ROOT), "--widths", "0.1", "--threads", "1", "--batch_sizes", "2"]
    assert eager_speed.main([*options, "--frames", "10", "--rounds", "1"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()[4:]]
    assert [row[:4] for row in rows] == [["mn01", "evaluation", "1", "2"], ["mn01", "training", "1", "2"]]
    assert all(float(word) > 0 for row in rows for word in row[4:-1] if word != "to")
    assert float(rows[1][-3]) > float(rows[0][-3])  # training allocates more


def test_times_memory_and_bits_are_compared() -> None:
    answers = {THIS: iter([(1e6, 3e6, "a"), (9, 9), (2, 4), (2, 2)]), BASELINE: iter([(2e6, 4e6, "b"), (1, 1), (1, 2), (2, 2)])}
    processes = {key: lambda task, answers=answers: next(answers) for key, answers in answers.items()}
    row = eager_speed.compare(processes, {"width": 1.0, "mode": "training", "threads": 1, "batch": 8}, 2)
    assert row[:6] == ("mn10", "training", "1", "8", "3000.0", "2000.0")
    assert row[6:] == ("1.500", "1.250 to 1.750", "1.500", "1.250 to 1.750", "1.0", "2.0", "3.0", "4.0", "no")


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkout"):
        eager_speed.main(["--baseline", str(tmp_path)])
