from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.tagger import AudioTagger, timeline_figure

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 96000).astype(np.float32)


def test_the_part_and_the_channel_of_the_timeline_are_drawn(
    loudness: AudioTagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "x.wav", np.stack([NOISE, NOISE[::-1]], 1), 32000, subtype="FLOAT")
    seen: list[np.ndarray] = []

    def picture(blocks: object, seconds: float) -> np.ndarray:
        seen.append(np.concatenate(list(blocks)))
        assert seconds == 1.5
        return np.zeros((64, 10))

    monkeypatch.setattr(timeline_figure, "log_mel_picture", picture)
    timeline = loudness.tag_windows(tmp_path / "x.wav", window=0.5, hop=0.25, start=1, end=2.5, channel=2)
    timeline_figure.timeline_figure(tmp_path / "x.wav", timeline, tmp_path / "x.png")
    np.testing.assert_array_equal(seen[0], NOISE[::-1][32000:80000])
    assert (tmp_path / "x.png").stat().st_size > 1000
