"""The benchmark on seconds of sound: all variants process the same recordings and agree; speeds are not tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import common, folder
from benchmarks.folder import PLAIN, VariantResult
from datasets import audio


def test_variants_agree_on_what_is_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "read_plainly", audio.load)  # librosa may be missing
    monkeypatch.setattr(common, "version", lambda package: "present")
    for name in ("speech", "wind", "rock"):
        waveform, rate = soundfile.read(common.RECORDINGS / f"{name}.ogg")
        soundfile.write(tmp_path / f"{name}.wav", waveform[: 2 * rate], rate)
    soundfile.write(tmp_path / "short.wav", np.ones(100), 32000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but no more")
    figure = tmp_path / "folder.png"
    assert folder.main(["--audio_path", str(tmp_path), "--rounds", "1", "--threads", "2", "--figure", str(figure)]) == 0
    lines = capsys.readouterr().out.splitlines()
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert len(left_out) == 2 and all(any(name in line for line in left_out) for name in ("broken.wav", "short.wav"))
    assert any("3 recordings, 0.00 hours, of 2.0 s" in line for line in lines)
    rows = {line[:18].strip(): line[18:].split() for line in lines if line.endswith("%")}
    assert list(rows) == [PLAIN, "tag_files, torch", "tag_files, onnx"]
    assert rows[PLAIN][2:] == ["1.00", "100.0%"] and all(row[3] == "100.0%" for row in rows.values())
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_variants_are_compared_group_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    plain, fast = VariantResult([2.0, 8.0, 10.0], ["x", "y", "x", "y"]), VariantResult([1.0, 1.0, 2.0], ["x", "y", "y", "y"])
    folder.print_table("title", {PLAIN: plain, "fast": fast}, [2, 1, 1], [30.0, 20.0, 50.0])
    rows = [line.removeprefix(PLAIN).removeprefix("fast").split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert rows == [["0.1", "5", "1.00", "100.0%"], ["1.0", "25", "5.00", "75.0%"]]  # 25 of 30, 20 and 25; 5 of 2, 8 and 5
