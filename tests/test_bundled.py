"""The bundled model on silence and on the bundled recordings, none of which it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.labels import audioset_labels
from helpers.tagger.audio_tagger import AudioTagger
from models import checkpoints
from models.registry import BUNDLED

RESOURCES = Path(__file__).resolve().parent.parent / "resources"
RATE = 32000


@pytest.fixture(scope="module", params=["torch", "onnx"])
def tagger(request: pytest.FixtureRequest) -> AudioTagger:
    return AudioTagger("mn04_distilled", "cpu", backend=request.param)


@pytest.mark.parametrize(
    ("recording", "events"),
    [("speech", {"Speech"}), ("rock", {"Music"}), ("scene", {"Speech", "Music"}), ("wind", {"Wind"})],
)
def test_names_what_is_heard(tagger: AudioTagger, recording: str, events: set[str]) -> None:
    tags = tagger.tag(RESOURCES / "recordings" / f"{recording}.ogg", top_k=5)
    assert events <= {tag.label for tag in tags}


def test_timeline_of_the_scene_begins_with_speech_and_ends_with_music(tagger: AudioTagger) -> None:
    timeline = tagger.tag_windows(RESOURCES / "recordings" / "scene.ogg", window=3, hop=1)
    scores = timeline.scores[:, [audioset_labels().index(label) for label in ("Speech", "Music")]]
    assert scores[0, 0] > scores[0, 1] and scores[-1, 0] < scores[-1, 1]


@pytest.mark.parametrize("seconds", [1, 5, 10, 30])
@pytest.mark.parametrize("level_db", [-np.inf, -90, -70])
def test_hears_nothing_in_silence_and_low_noise(tagger: AudioTagger, level_db: float, seconds: int) -> None:
    noise = np.random.default_rng(0).standard_normal(seconds * RATE) * 10 ** (level_db / 20)
    first = tagger.tag(noise.astype(np.float32), RATE, top_k=1)[0]
    assert first.label == "Silence" or first.score <= 0.3


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_frames_of_the_scene_say_when_speech_and_music_are(backend: str) -> None:
    frames = AudioTagger("fmn04_soundscapes", "cpu", backend=backend).frames(RESOURCES / "recordings" / "scene.ogg")

    def mean(label: str, start: float, end: float) -> float:
        inside = (frames.times >= start) & (frames.times < end)
        return float(frames.scores[inside, frames.labels.index(label)].mean())

    assert frames.step_seconds == 0.04 and len(frames.times) == 250
    assert mean("Speech", 0.5, 5.0) > 0.7 > 0.3 > mean("Speech", 7.5, 10.0)
    assert mean("Music", 6.5, 10.0) > 0.7 > 0.3 > mean("Music", 0.5, 5.0)
    assert mean("Speech", 5.6, 6.2) < 0.3 and mean("Music", 5.7, 6.1) < 0.4  # the pause between them


def test_bundled_files_are_small_and_complete() -> None:
    for name, file in BUNDLED.items():
        assert (RESOURCES / file).stat().st_size <= 5e6
        assert (RESOURCES / file).with_suffix(".onnx").is_file() and (RESOURCES / file).with_suffix(".md").is_file()
        checkpoint = checkpoints.load(name)
        assert set(checkpoint.labels) <= set(audioset_labels()) and len(set(checkpoint.labels)) == checkpoint.arch.num_classes
        assert checkpoint.metrics["psds1" if name.startswith("f") else "mAP"] > 0
        assert not any(str(value).startswith("/") for value in checkpoint.args.values())
    assert sum(path.stat().st_size for path in (RESOURCES / "recordings").iterdir()) <= 2e6


def test_every_recording_has_its_source() -> None:
    page = (RESOURCES / "README.md").read_text(encoding="utf-8")
    for path in (RESOURCES / "recordings").iterdir():
        assert f"`{path.name}`" in page
