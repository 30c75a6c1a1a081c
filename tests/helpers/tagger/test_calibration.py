"""Thresholds of the best F1, by brute force and from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import f1_score

from helpers.tagger import audio_tagger as module
from helpers.tagger import calibration
from helpers.tagger.calibration import BINS, FrameCounts
from helpers.tagger.thresholds import class_thresholds
from tests.frame_loudness import FrameLoudness

RATE = 16000


def test_the_best_f1_is_that_of_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((400, 3)) < (0.3, 0.1, 0.0)
    scores = np.clip(rng.normal(0.3 + 0.3 * targets, 0.15), 0, 1).astype(np.float32)
    counts = FrameCounts(3)
    counts.add(scores[:150], targets[:150])
    counts.add(scores[150:], targets[150:])
    thresholds, best = counts.best()
    for k in range(2):
        found = scores[:, k] > np.arange(BINS)[:, None] / BINS  # (BINS, 400)
        possible = 2 * (found & targets[:, k]).sum(1) / (found.sum(1) + targets[:, k].sum())
        assert best[k] == pytest.approx(possible.max())
        assert f1_score(targets[:, k], scores[:, k] > thresholds[k]) == pytest.approx(best[k])
    assert np.isnan(thresholds[2])


def test_the_command_writes_a_table_for_inference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_message: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    backend = FrameLoudness()
    backend.labels = ("Bell", "around")
    monkeypatch.setattr(module, "load_backend", lambda *_: backend)
    sound = np.full(6 * RATE, 0.2, np.float32)
    sound[2 * RATE : 4 * RATE] = 0.7
    soundfile.write(tmp_path / "soundscapes_1.wav", sound, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "other.wav", sound, RATE)
    table, output = tmp_path / "events.tsv", tmp_path / "thresholds.csv"
    table.write_text(
        "filename\tonset\toffset\tevent_label\n"
        "soundscapes_1.wav\t2.0\t4.0\t/m/0395lw\nsoundscapes_1.wav\t0\t1\tof no class\nsoundscapes_2.wav\t0\t1\tBell\n"
    )
    argv = ["--model_name", "any", "--audio_path", tmp_path, "--events", table, "--output", output]
    assert calibration.main([*map(str, argv)]) == 0
    assert "1 of 2 recordings" in capsys.readouterr().err
    assert output.read_text().splitlines()[0] == "label,threshold"
    thresholds = class_thresholds(output, backend.labels)
    assert 0.2 < thresholds[0] < 0.7 and thresholds[1] == 0.3
    table.write_text("filename\tonset\toffset\tevent_label\nc.wav\t2.0\t4.0\tBell\n")
    assert "none of the 1 recordings" in failing_message(calibration.main, *argv)
