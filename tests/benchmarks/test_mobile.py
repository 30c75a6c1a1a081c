"""The benchmark on an ONNX file, whose runtime is always there; what the figures are is not tested."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import mobile
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from models import checkpoints
from models.errors import UserError


def test_a_file_is_measured_and_compared(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.onnx", to_onnx(checkpoints.load_model(tiny_checkpoint), "tiny"))
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 32000), 32000)
    monkeypatch.setattr(mobile, "growth_in_new_process", lambda path: 7_000_000)  # which imports torch again
    argv = ["--model_name", tiny_checkpoint, tmp_path / "tiny.onnx", "--recordings", tmp_path / "noise.wav", "--rounds", "1"]
    assert mobile.main(list(map(str, argv))) == 0
    name, megabytes, milliseconds, memory, largest, mean, same, clips = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, memory, same, clips) == ("tiny.onnx", "7.0", "1.000", "1")
    assert float(megabytes) > 0 and float(milliseconds) > 0 and float(mean) <= float(largest) < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_a_process_holds() -> None:
    before = mobile.resident_bytes()
    held = np.ones(8_000_000)  # 64 MB
    assert mobile.resident_bytes() - before > 0.8 * held.nbytes


def test_memory_grows_from_the_second_loading_on(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "tiny.onnx", to_onnx(checkpoints.load_model(tiny_checkpoint), "tiny"))
    sizes = iter((10, 25))
    monkeypatch.setattr(mobile, "resident_bytes", lambda: next(sizes))
    assert mobile.growth(tmp_path / "tiny.onnx") == 15


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(UserError, match=r"\.tflite"):
        mobile.load(tmp_path / "model.pt")
