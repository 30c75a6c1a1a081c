"""The bundled demonstration model on the bundled recordings, none of which it was trained on."""

from pathlib import Path

import pytest

from datasets.labels import audioset_labels
from helpers.tagger.audio_tagger import AudioTagger
from models import checkpoints
from models.registry import BUNDLED

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


@pytest.fixture(scope="module")
def tagger() -> AudioTagger:
    return AudioTagger("mn04_opensounds")


@pytest.mark.parametrize(
    ("recording", "events"),
    [("speech", {"Speech", "Female speech, woman speaking"}), ("rock", {"Music", "Rock music"}), ("scene", {"Speech", "Music"})],
)
def test_names_what_is_heard(tagger: AudioTagger, recording: str, events: set[str]) -> None:
    tags = tagger.tag(RESOURCES / "recordings" / f"{recording}.ogg")
    assert events <= {tag.label for tag in tags[:3]}


def test_bundled_files_are_small_and_complete() -> None:
    for name, file in BUNDLED.items():
        assert (RESOURCES / file).stat().st_size <= 5e6
        checkpoint = checkpoints.load(name)
        assert checkpoint.labels == audioset_labels() and checkpoint.metrics["mAP"] > 0
        assert not any(str(value).startswith("/") for value in checkpoint.args.values())
    assert sum(path.stat().st_size for path in (RESOURCES / "recordings").iterdir()) <= 2e6


def test_every_recording_has_its_source() -> None:
    page = (RESOURCES / "README.md").read_text(encoding="utf-8")
    for path in (RESOURCES / "recordings").iterdir():
        assert f"`{path.name}`" in page
