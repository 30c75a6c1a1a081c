"""The benchmark against this very checkout; what the figures are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, stream_speed
from models.errors import UserError


def test_streams_and_timelines_are_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stream_speed, "WINDOWS", ((0.5, 0.1),))
    monkeypatch.setattr(stream_speed, "BACKENDS", ("onnx",))
    assert stream_speed.main(["--baseline", str(common.ROOT), "--seconds", "1", "--rounds", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row.split()[5] for row in rows] == ["stream", "timeline"]
    for row in rows:
        assert all(float(word) > 0 for word in row.split()[6:9]) and float(row.split()[-1]) == 0


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkout"):
        stream_speed.main(["--baseline", str(tmp_path)])
