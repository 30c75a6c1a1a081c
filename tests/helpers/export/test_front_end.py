"""The exported front end against an independent float64 formula and against PyTorch's, for every configuration and length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.common import RECORDINGS
from datasets import audio
from helpers.export.front_end import front_end_to_onnx, split_factor
from helpers.export.graph import to_onnx
from models import checkpoints
from models.config import MelConfig
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel
from tests.log_mel import reference

RATE = 32000  # Hz
CONFIGS = [
    MelConfig(),
    *(MelConfig(hop_size=hop_size) for hop_size in (160, 480, 640, 800)),
    *(MelConfig(n_mels=n_mels) for n_mels in (40, 64, 256)),
    MelConfig(sample_rate=16000, win_length=400, hop_size=160, n_fft=512),
    MelConfig(sample_rate=16000, win_length=400, hop_size=160, n_fft=512, log_floor=1e-7),
    MelConfig(hop_size=1600),  # longer than the frame
    MelConfig(win_length=1024),  # as long as the frame
    MelConfig(win_length=1009),  # no multiple of the factor, and nearly as long as the frame
    MelConfig(win_length=401),  # odd
    MelConfig(win_length=800, hop_size=441, n_fft=1000),  # no factor: hop and transform have no common divisor
    MelConfig(hop_size=300, n_fft=1006),  # factor 2, and an odd number of n1
    MelConfig(fmin=50.0, fmax=8000.0),
]


def exported(mel: MelConfig) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(front_end_to_onnx(mel).SerializeToString(), providers=["CPUExecutionProvider"])


def spectrograms(session: onnxruntime.InferenceSession, waveforms: np.ndarray) -> np.ndarray:
    """(B, samples) -> (B, n_mels, frames)."""
    [found] = session.run(None, {"waveform": waveforms})
    assert found.dtype == np.float32 and found.shape[1] == 1
    return found[:, 0]


def noise(batch: int, samples: int) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-0.3, 0.3, (batch, samples)).astype(np.float32)


@pytest.mark.parametrize("mel", CONFIGS, ids=str)
def test_configurations(mel: MelConfig) -> None:
    session = exported(mel)
    front_end = AugmentMelSTFT.from_config(mel).eval()
    for waveforms in (noise(1, 16000), noise(3, 3001)):
        found = spectrograms(session, waveforms)
        np.testing.assert_allclose(found, [reference(waveform, mel) for waveform in waveforms], atol=1e-4)
        np.testing.assert_allclose(found, front_end(torch.from_numpy(waveforms)), atol=2e-4)


@pytest.mark.parametrize("mel", [MelConfig(), MelConfig(win_length=1009), MelConfig(hop_size=441)], ids=str)
def test_lengths(mel: MelConfig) -> None:
    session = exported(mel)
    front_end = AugmentMelSTFT.from_config(mel).eval()
    edges = (1, 2, 512, 513, 514, 515, 528, 529, 800, 801, 960, 961, 1121)  # of padding, of windows, of hops, of rows of 16
    for waveforms in (*(noise(2, samples) for samples in edges), noise(1, 60 * RATE)):
        found = spectrograms(session, waveforms)
        assert found.shape == (len(waveforms), mel.n_mels, mel.frames(waveforms.shape[1]))
        np.testing.assert_allclose(found, front_end(torch.from_numpy(waveforms)), atol=2e-4)


def test_recordings() -> None:
    session = exported(MelConfig())
    front_end = AugmentMelSTFT().eval()
    for path in sorted(RECORDINGS.glob("*.ogg")):
        waveforms = audio.load(path, RATE, seconds=5.0)[None]
        np.testing.assert_allclose(spectrograms(session, waveforms), front_end(torch.from_numpy(waveforms)), atol=2.7e-5)


def test_a_full_scale_sine() -> None:
    """The other bands are ten decades below the loudest."""
    sine = np.sin(2 * np.pi * 12000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    [found] = spectrograms(exported(MelConfig()), sine[None])
    np.testing.assert_allclose(found, reference(sine, MelConfig()), atol=2.5e-4)


@torch.inference_mode()
@pytest.mark.parametrize("hop_size", [160, 320, 480, 640, 800])
def test_scores(hop_size: int) -> None:
    network = checkpoints.load_model("mn04_distilled")
    network.mel = replace(network.mel, hop_size=hop_size)
    session = onnxruntime.InferenceSession(to_onnx(network, "x").SerializeToString(), providers=["CPUExecutionProvider"])
    model = WaveformModel(network).eval()
    speech = audio.load(RECORDINGS / "speech.ogg", RATE)
    for waveforms in (noise(2, 1), speech[None, 8000:8900], np.resize(speech, (1, (60 if hop_size == 800 else 3) * RATE))):
        scores, _ = session.run(["scores", "embedding"], {"waveform": waveforms})
        expected = model.scores(model(torch.from_numpy(waveforms))[0])
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        assert np.ptp(scores) > 0.1


def test_silence_is_exact() -> None:
    found = spectrograms(exported(MelConfig()), np.zeros((1, RATE), np.float32))
    np.testing.assert_allclose(found, (np.log(1e-5) + 4.5) / 5, rtol=1e-6)


def test_the_transform_is_split_where_hop_and_transform_have_a_common_divisor() -> None:
    assert [split_factor(mel) for mel in CONFIGS if mel.sample_rate == 16000 or mel.n_fft == 1024] == [16] * 15
    assert [split_factor(mel) for mel in CONFIGS if mel.n_fft in (1000, 1006)] == [1, 2]


def test_the_file_is_small() -> None:
    """Long tables are computed when the file is loaded."""
    assert len(front_end_to_onnx(MelConfig()).SerializeToString()) < 50_000
