"""The study at toy size: short clips are filled, long ones are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.tagger.audio_tagger import AudioTagger
from studies import short_clips


def test_only_short_clips_are_filled() -> None:
    tagger = AudioTagger("mn04_opensounds", backend="onnx", min_seconds=0)
    rng = np.random.default_rng(0)
    short, long = (rng.normal(0, 0.1, length).astype(np.float32) for length in (8000, 16000))
    scores = short_clips.compute_scores(tagger, [short, long], [12000])
    assert scores.keys() == {("", 0), ("zeros", 12000), ("repeated", 12000)}
    for filling, filled in (("zeros", np.pad(short, (0, 4000))), ("repeated", np.concatenate([short, short[:4000]]))):
        np.testing.assert_array_equal(scores[filling, 12000][1], scores["", 0][1])
        np.testing.assert_allclose(scores[filling, 12000][0], tagger.backend([filled])[0][0], atol=1e-6)
        assert not np.array_equal(scores[filling, 12000][0], scores["", 0][0])


def test_it_prints_each_length(tiny_audioset: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--backend", "torch", "--dataset_dir", str(tiny_audioset), "--seconds", "0.5", "2"]
    assert short_clips.main(["--model_name", str(tiny_checkpoint), *options]) == 0
    first, half, two = capsys.readouterr().out.splitlines()
    assert first.startswith("12 clips") and half.split()[0] == "0" and two.split()[0] == "12"
