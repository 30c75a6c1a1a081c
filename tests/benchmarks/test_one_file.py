"""The benchmark's parts at toy size: they run, agree and give times; what the times are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import one_file
from models.MobileNetV3 import get_model

RECORDING = one_file.ROOT / "resources" / "recordings" / "speech.ogg"


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_both_programs_print_the_same_events(capsys: pytest.CaptureFixture[str]) -> None:
    runs = one_file.run_in_turns("mn04_opensounds", RECORDING, rounds=1)
    (torch_run,), (onnx_run,) = runs["torch"], runs["onnx"]
    assert torch_run.printed == onnx_run.printed and torch_run.printed.startswith("Speech: ")
    assert torch_run.seconds > 0 and torch_run.megabytes > onnx_run.megabytes > 10
    one_file.print_runs("title", runs)
    assert len(capsys.readouterr().out.strip().splitlines()) == 4


def test_parts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(one_file, "CLIP_SAMPLES", 8000)
    times = one_file.time_parts(get_model(width_mult=0.1).eval(), batch_size=2, threads=1, rounds=2)
    assert list(times) == ["front end", "network", "both"]
    assert all(len(one) == 2 and min(one) > 0 for part in times.values() for one in part.values())
    one_file.print_times("title", times)
    assert len(capsys.readouterr().out.strip().splitlines()) == 4


def test_a_failing_program_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the torch program failed: .*gone.wav"):
        one_file.run_in_turns("mn04_opensounds", tmp_path / "gone.wav", rounds=1)
