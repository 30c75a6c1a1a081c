from __future__ import annotations

from pathlib import Path

import pytest

from studies import receptive_field as study


def test_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "field.png"
    recording = study.RECORDINGS / "speech.ogg"  # shorter than 10 s
    options = ["--model_width", 0.1, "--strides", 2, 2, 2, 1, "--n_mels", 32, "--recordings", recording, "--figure", figure]
    assert study.main([str(option) for option in options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["features.0.0", "3", "2", "3", "2"]
    assert any("467 frames (4.68 s) and 467 mel bands" in line for line in lines)
    assert "the mean over 1 recordings" in lines[-2]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_no_recordings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recordings in"):
        study.main(["--model_width", "0.1", "--recordings", str(tmp_path)])
