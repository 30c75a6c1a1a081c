from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu


def test_it_runs_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "loader_workers", lambda: 0)
    options = ["--models", "mn01", "--batch_size", "2", "--seconds", "0.5", "--measured_seconds", "0.01", "--recordings", "2"]
    assert gpu.main([*options, "--figure", str(tmp_path / "gpu.png")]) == 0
    printed = capsys.readouterr().out
    for expected in ("mn01, fp32", "mn01, bf16", "0 workers decode mp3s", "front end", "optimizer", "tagging a folder"):
        assert expected in printed
    assert (tmp_path / "gpu.png").stat().st_size > 1000


def test_what_there_is_no_time_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--models", "mn01", "--batch_size", "2", "--seconds", "0.5", "--minutes", "1e-9"]) == 0
    assert "left out, as 1e-09 minutes are over: training of mn01, fp32" in capsys.readouterr().out
