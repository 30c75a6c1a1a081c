"""The benchmark against this very checkout; what the figures are is not tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import common, export_speed
from models.errors import UserError


class StandIn:
    """A baseline that answers at once: starting a real one takes seconds."""

    def __call__(self, task: dict) -> dict[str, int] | list[float]:
        return dict.fromkeys(task["parts"], 1) if "parts" in task else [1.0, 1.0]

    def close(self) -> None:
        pass


def test_the_front_end_and_networks_are_compared(
    forked_process: Callable[..., common.CheckoutProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(checkout: Path, code: str) -> common.CheckoutProcess | StandIn:
        return forked_process(checkout, code) if checkout == common.ROOT else StandIn()

    monkeypatch.setattr(export_speed, "CheckoutProcess", start)
    (tmp_path / "helpers" / "export").mkdir(parents=True)
    (tmp_path / "helpers" / "export" / "runtime.py").touch()
    options = ["--baseline", str(tmp_path), "--widths", "0.1", "--threads", "1"]
    assert export_speed.main([*options, "--clip_seconds", "0.2", "--rounds", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[4:]
    assert [row[:10].strip() for row in rows] == ["front end", "mn01"]
    for row in rows:
        assert all(float(word) >= 0 for word in row.split()[-8:] if word != "to")
        assert "333.33" in row  # of the stand-in, for one of 3 clips


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkout"):
        export_speed.main(["--baseline", str(tmp_path)])
