"""The published checkpoint mn04_as, where it is present: the reference's outputs, the export, and what it hears.

EFFICIENTAT_RESOURCES names the folder that holds mn04_as_mAP_432.pt. The reference's outputs are of 20 recordings of ESC-10,
whose folder ESC10_DIR names (without it data/esc10).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

import export
from datasets.labels import audioset_labels
from datasets.location import data_dir
from helpers.tagger.audio_tagger import AudioTagger
from models.assets import resources_dir
from models.MobileNetV3 import get_model
from models.registry import PRETRAINED

NAME = "mn04_as"
CHECKPOINT = resources_dir() / PRETRAINED[NAME].asset
ESC10 = Path(os.environ.get("ESC10_DIR") or data_dir("esc10"))
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "golden_mn04_as.npz"
RECORDINGS = Path(__file__).resolve().parents[2] / "resources" / "recordings"

pytestmark = pytest.mark.skipif(
    not CHECKPOINT.is_file(), reason=f"no {CHECKPOINT.name}: set EFFICIENTAT_RESOURCES to the folder that holds it"
)


@pytest.fixture(scope="module")
def tagger() -> AudioTagger:
    return AudioTagger(NAME, "cpu")


@pytest.mark.skipif(not ESC10.is_dir(), reason="no recordings of ESC-10: set ESC10_DIR to their folder")
def test_outputs_are_those_of_the_reference() -> None:
    model = get_model(pretrained_name=NAME, waveform=True).eval()
    with np.load(GOLDEN) as stored:
        names, expected_logits, expected_embeddings = (stored[key] for key in ("names", "logits", "embedding"))
    for name, *expected in zip(names, expected_logits, expected_embeddings, strict=True):
        waveform, rate = soundfile.read(ESC10 / str(name), dtype="float32")
        with torch.inference_mode():
            outputs = model(torch.from_numpy(soxr.resample(waveform, rate, 32000))[None])
        for output, values in zip(outputs, expected, strict=True):
            assert np.abs(output[0].numpy() - values).max() <= 2e-3


def test_it_is_the_network_that_the_registry_describes(tagger: AudioTagger) -> None:
    model = get_model(pretrained_name=NAME, waveform=True)
    assert model.arch == PRETRAINED[NAME].arch and model.arch.width_mult == 0.4 and model.embedding_size == 384
    assert tagger.labels == audioset_labels()


def test_the_exported_model_gives_the_same_scores_and_embedding(tagger: AudioTagger, tmp_path: Path) -> None:
    assert export.main(["--model_name", NAME, "--output", str(tmp_path / "model.onnx")]) == 0
    exported = AudioTagger(tmp_path / "model.onnx", backend="onnx")
    scene = RECORDINGS / "scene.ogg"
    assert exported.labels == tagger.labels
    np.testing.assert_allclose(exported.scores(scene), tagger.scores(scene), atol=1e-4)
    np.testing.assert_allclose(exported.embed(scene), tagger.embed(scene), atol=2e-3)


@pytest.mark.parametrize(("recording", "event"), [("speech", "Speech"), ("rock", "Music"), ("wind", "Wind")])
def test_a_bundled_recording_is_heard(recording: str, event: str, tagger: AudioTagger) -> None:
    tags = tagger.tag(RECORDINGS / f"{recording}.ogg", top_k=3)
    assert event in {tag.label for tag in tags} and tags[0].score > 0.3


def test_silence_is_not_music(tagger: AudioTagger) -> None:
    tags = tagger.tag(np.zeros(160000, np.float32), 32000, top_k=1)
    assert tags[0].label == "Silence"
