"""The benchmark with seconds of sound: it writes files of the stated length, runs both commands and reports their memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import memory
from benchmarks.common import ProcessRun
from benchmarks.memory import TaggingRun


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 2)), 8000, subtype="PCM_16")
    return path


@pytest.mark.parametrize("seconds", [0.1, 0.375, 2.0])
def test_a_recording_is_repeated(stereo: Path, tmp_path: Path, seconds: float) -> None:
    memory.write_repeated(tmp_path / "long.flac", stereo, seconds)
    samples, rate = soundfile.read(tmp_path / "long.flac")
    once, _ = soundfile.read(stereo)
    assert rate == 8000
    np.testing.assert_array_equal(samples, np.tile(once, (6, 1))[: round(seconds * 8000)])


def test_every_length_is_tagged_whole_and_in_windows(
    stereo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "memory.svg"
    monkeypatch.setattr(memory, "SHARES", (0.5,))
    assert memory.main(["--hours", str(4 / 3600), "--recording", str(stereo), "--figure", str(figure)]) == 0
    rows = [line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.startswith(("whole", "timeline"))]
    assert [row[:2] for row in rows] == [["2", "s"]] * 2
    assert all(float(seconds) > 0 and 50 < float(peak) < 1000 for *_, seconds, _, peak in rows)
    assert figure.read_text().count("of sound: peak") == 2


def test_speed_and_peak_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    memory.print_table("title", [TaggingRun("onnx", "whole", 7200.0, ProcessRun(20.0, 345_600_000, [], ""))])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["whole,", "onnx", "2", "h", "20.0", "360", "345.6"]
