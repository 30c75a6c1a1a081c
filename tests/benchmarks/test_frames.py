"""The benchmark of frame-wise models, with a backend whose frames depend on the 0.8 s around them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import frames
from helpers.tagger import AudioTagger
from helpers.tagger import audio_tagger as module
from tests.frame_loudness import FrameLoudness


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> AudioTagger:
    monkeypatch.setattr(module, "load_backend", lambda *_: FrameLoudness())
    return AudioTagger("any")


def test_frames_differ_where_the_margin_is_shorter_than_their_surroundings(tagger: AudioTagger) -> None:
    sound = np.repeat(np.random.default_rng(0).uniform(-1, 1, 1000), 640).astype(np.float32)
    rows = frames.compare_windows(tagger, sound)
    assert {len(row) for row in rows} == {len(frames.WINDOW_COLUMNS)}
    assert all(0.5 < float(row[-1]) < 2 for row in rows)
    largest = {(margin, against): float(value) for margin, against, value, *_ in rows}
    for against in ("the whole", "windows elsewhere"):
        assert largest["0.5", against] > 0.001 and largest["1", against] == largest["2", against] == 0


def test_agreement_counts_each_event_once() -> None:
    scores = np.zeros((50, 2), np.float32)
    scores[10:30, 0] = scores[5:20, 1] = 0.9
    shifted = np.stack([np.roll(scores[:, 0], 4), np.roll(scores[:, 1], 8)], 1)  # by 160 and 320 ms
    assert frames.differences(scores, shifted, 0.04)[-1] == "0.500"


def test_the_sound_is_as_long_as_asked() -> None:
    assert len(frames.load(None, 10.5, 16000)) == 168_000


def test_a_stream_is_followed(tagger: AudioTagger) -> None:
    sound = np.zeros(40 * 16000, np.float32)
    for start in range(22, 34, 2):
        sound[start * 16000 : (start + 1) * 16000] = 0.5
    typical, most, milliseconds = map(float, frames.follow_stream(tagger, sound))
    assert 2.2 <= typical <= most <= 3.3 and milliseconds >= 0
