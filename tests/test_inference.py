import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import inference
from datasets.labels import audioset_labels
from helpers.tagger import AudioTagger
from models import checkpoints
from models.config import Arch
from models.MobileNetV3 import MobileNetV3
from models.preprocess import AugmentMelSTFT

SCRIPT = Path(inference.__file__)
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 16000).astype(np.float32)


def test_prints_the_published_form(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "noise.wav", NOISE, 16000)
    assert inference.main(["--model_name", str(tiny_checkpoint), "--audio_path", str(tmp_path / "noise.wav")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "************* Acoustic Event Detected: *****************"
    assert lines[-1] == "********************************************************"
    scores = []
    for line in lines[1:-1]:
        label, score = re.fullmatch(r"(.+): ([01]\.\d{3})", line).groups()
        assert label in audioset_labels()
        scores.append(float(score))
    assert len(scores) == 10 and scores == sorted(scores, reverse=True)


def test_scores_are_the_sigmoid_of_the_model_on_its_own_front_end(tiny_checkpoint: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", NOISE, 32000, subtype="FLOAT")
    tags = AudioTagger(tiny_checkpoint).tag(tmp_path / "noise.wav")
    model = checkpoints.load_model(tiny_checkpoint)
    spectrogram = AugmentMelSTFT.from_config(model.mel).eval()(torch.from_numpy(NOISE)[None])
    with torch.no_grad():
        scores = torch.sigmoid(model(spectrogram[:, None])[0][0])
    best = scores.argsort(descending=True)[:10]
    np.testing.assert_allclose([tag.score for tag in tags], scores[best].numpy(), atol=1e-6)
    for tag in tags:
        assert tag.score == pytest.approx(scores[audioset_labels().index(tag.label)].item(), abs=1e-6)


def test_labels_come_from_the_checkpoint(tmp_path: Path) -> None:
    model = MobileNetV3(Arch(num_classes=3, width_mult=0.1), labels=["cat", "dog", "rain"])
    checkpoints.save(tmp_path / "three.pt", model)
    content = io.BytesIO()
    soundfile.write(content, NOISE, 32000, format="WAV")
    tags = AudioTagger(tmp_path / "three.pt").tag(content.getvalue())
    assert sorted(tag.label for tag in tags) == ["cat", "dog", "rain"]


def test_ensemble_of_one_model_twice_is_that_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", NOISE, 32000)
    alone, twice = AudioTagger(tiny_checkpoint), AudioTagger([tiny_checkpoint, tiny_checkpoint])
    assert [tag.label for tag in alone.tag(tmp_path / "noise.wav")] == [tag.label for tag in twice.tag(tmp_path / "noise.wav")]


@pytest.mark.parametrize(
    ("rate", "channels", "samples"),
    [(32000, 1, 320), (32000, 1, 1), (96000, 8, 96000), (8000, 2, 4000), (44100, 1, 44100)],
    ids=["10 ms", "one sample", "8 channels at 96 kHz", "telephone", "44.1 kHz"],
)
def test_unusual_recordings_are_tagged(tiny_checkpoint: Path, tmp_path: Path, rate: int, channels: int, samples: int) -> None:
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).uniform(-0.1, 0.1, (samples, channels)), rate)
    tags = AudioTagger(tiny_checkpoint).tag(tmp_path / "x.wav")
    assert len(tags) == 10 and all(0 <= tag.score <= 1 for tag in tags)


def test_silence_is_tagged(tiny_checkpoint: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(32000), 32000)
    assert len(AudioTagger(tiny_checkpoint).tag(tmp_path / "x.wav")) == 10


@pytest.mark.parametrize("case", ["missing", "text", "empty", "folder", "truncated", "nan", "unknown model", "damaged model"])
def test_mistakes_end_in_one_line(case: str, tiny_checkpoint: Path, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    path, model = tmp_path / "x.wav", str(tiny_checkpoint)
    soundfile.write(path, NOISE, 32000)
    match case:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("this is no recording\n" * 100)
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.unlink()
            path.mkdir()
        case "truncated":
            path.write_bytes(path.read_bytes()[:8000])
        case "nan":
            soundfile.write(path, np.full(32000, np.nan), 32000, subtype="FLOAT")
        case "unknown model":
            model = "mn11_as"
        case "damaged model":
            model = str(tmp_path / "damaged.pt")
            Path(model).write_bytes(tiny_checkpoint.read_bytes()[:5000])
    message = failing_message(inference.main, "--model_name", model, "--audio_path", path)
    assert (model if "model" in case else "x.wav") in message


def test_works_from_any_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 32000)
    argv = [sys.executable, SCRIPT, "--model_name", tiny_checkpoint, "--audio_path", "x.wav", "--cuda"]
    result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 12
    assert "Traceback" not in result.stderr
