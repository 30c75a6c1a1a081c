"""The benchmark with one short recording: both commands run, agree and are measured; what the figures are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, one_file
from benchmarks.common import Run

RECORDING = common.RECORDINGS / "speech.ogg"


def test_both_backends_print_the_same_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "in_turns", lambda items, rounds: [(rounds, item) for item in items])  # no round to warm up
    figure = tmp_path / "one_file.png"
    assert one_file.main(["--audio_path", str(RECORDING), "--rounds", "1", "--figure", str(figure)]) == 0
    table = {line[:44].strip(): line[44:].split() for line in capsys.readouterr().out.splitlines()}
    (torch_seconds, torch_peak), (onnx_seconds, onnx_peak) = (map(float, table[backend]) for backend in ("torch", "onnx"))
    assert torch_seconds > onnx_seconds > 0 and torch_peak > onnx_peak > 10
    assert table["both print the same"] == ["yes"]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_runs_are_compared_round_by_round(capsys: pytest.CaptureFixture[str]) -> None:
    runs = {
        "torch": [Run(2.0, 200_000_000, [], "Wind"), Run(9.0, 400_000_000, [], "Wind"), Run(8.0, 300_000_000, [], "Wind")],
        "onnx": [Run(1.0, 100_000_000, [], "Wind"), Run(3.0, 100_000_000, [], "Wind"), Run(1.0, 200_000_000, [], "Rain")],
    }
    one_file.print_runs("title", runs)
    rows = [line[44:].split() for line in capsys.readouterr().out.strip().splitlines()]
    assert rows == [["seconds", "peak", "MB"], ["8.00", "300"], ["1.00", "100"], ["3.00", "2.00"], ["no"]]


def test_a_failing_command_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_file, "BACKENDS", ("onnx",))
    with pytest.raises(ValueError, match="python inference.py .*gone.wav not found"):
        one_file.run_in_turns("mn04_opensounds", tmp_path / "gone.wav", rounds=1)
