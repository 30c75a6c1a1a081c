"""The benchmark against this very checkout; what the figures are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, export_speed
from models.errors import UserError


def test_the_front_end_and_networks_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--baseline", str(common.ROOT), "--widths", "0.1", "--threads", "1"]
    assert export_speed.main([*options, "--clip_seconds", "0.2", "--rounds", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[4:]
    assert [row[:10].strip() for row in rows] == ["front end", "mn01"]
    for row in rows:
        assert all(float(word) > 0 for word in row.split()[-7:] if word != "to")


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkout"):
        export_speed.main(["--baseline", str(tmp_path)])
