"""The benchmark with one short recording: both commands run, agree and are measured; what the figures are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, one_file
from benchmarks.common import ProcessRun

RECORDING = common.RECORDINGS / "speech.ogg"


def test_both_backends_print_the_same_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "interleaved", lambda items, rounds: [(rounds, item) for item in items])  # no round to warm up
    figure = tmp_path / "one_file.png"
    assert one_file.main(["--audio_path", str(RECORDING), "--rounds", "1", "--figure", str(figure)]) == 0
    *_, torch, onnx, ratio, same = [line.split() for line in capsys.readouterr().out.splitlines()[:-2]]
    (torch_seconds, torch_peak), (onnx_seconds, onnx_peak) = map(float, torch[1:]), map(float, onnx[1:])
    assert torch_seconds > onnx_seconds > 0 and torch_peak > onnx_peak > 10
    assert same[-1] == "yes"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_runs_are_compared_round_by_round(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "torch": [(2.0, 200, "Wind"), (9.0, 400, "Wind"), (8.0, 300, "Wind")],
        "onnx": [(1.0, 100, "Wind"), (3.0, 100, "Wind"), (1.0, 200, "Rain")],
    }
    runs = {
        backend: [ProcessRun(seconds, size * 1_000_000, [], text) for seconds, size, text in rows]
        for backend, rows in values.items()
    }
    one_file.print_runs("title", runs)
    *_, torch, onnx, ratio, same = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (torch[1:], onnx[1:], ratio[-2:], same[-1]) == (["8.00", "300"], ["1.00", "100"], ["3.00", "2.00"], "no")


def test_another_checkout_is_compared_with_the_onnx_backend_too(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {"torch": 3.0, "onnx": 1.0, "baseline": 2.0}
    one_file.print_runs("title", {name: [ProcessRun(value, 100_000_000, [], "Wind")] for name, value in seconds.items()})
    ratios = [line.split()[-2:] for line in capsys.readouterr().out.splitlines() if "/ onnx" in line]
    assert ratios == [["3.00", "1.00"], ["2.00", "1.00"]]
