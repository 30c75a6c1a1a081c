"""Windows that share frames: the results of windows computed alone, with less work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from helpers.tagger import AudioTagger, overlapping
from helpers.tagger.streaming import StreamTagger
from helpers.tagger.windows import cut_windows
from models import checkpoints
from models.config import Arch, MelConfig
from models.network import MobileNetV3
from models.preprocess import AugmentMelSTFT

MELS = {
    "released": MelConfig(),
    "other": MelConfig(n_mels=40, sample_rate=16000, hop_size=100, n_fft=512, win_length=400, fmax=7000),
}
RNG = np.random.default_rng(0)
# Every sixteenth of a second has a level of its own, so that a frame out of place is heard.
NOISE = (RNG.standard_normal(64000) * np.repeat(RNG.uniform(0, 0.3, 32), 2000)).astype(np.float32)


def sensitive_network(mel: MelConfig) -> MobileNetV3:
    """A random network whose scores depend on what it hears: its batch norms have seen sound."""
    torch.manual_seed(0)
    network = MobileNetV3(Arch(num_classes=3, width_mult=0.1, input_dim_f=mel.n_mels), mel)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(AugmentMelSTFT.from_config(mel).eval()(torch.from_numpy(NOISE).view(8, -1)).unsqueeze(1))
        network.classifier[-1].weight *= 30
    return network.eval()


@pytest.fixture(scope="module", params=[(backend, mel) for backend in ("torch", "onnx") for mel in MELS], ids="-".join)
def tagger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AudioTagger:
    backend, name = request.param
    mel = MELS[name]
    network = sensitive_network(mel)
    path = tmp_path_factory.mktemp("models") / ("model.pt" if backend == "torch" else "model.onnx")
    if backend == "torch":
        checkpoints.save(path, network)
    else:
        write(path, to_onnx(network, "tiny"))
    return AudioTagger(path, "cpu", backend)


@pytest.fixture(autouse=True)
def from_the_first_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlapping, "WHOLE_WINDOWS", 0)


def alone(tagger: AudioTagger, sound: np.ndarray, window: int, hop: int, shortest: int = 0) -> list[np.ndarray]:
    """Scores and embeddings of the windows, each computed by itself."""
    windows = [np.pad(samples, (0, max(0, shortest - len(samples)))) for _, samples in cut_windows([sound], window, hop)]
    return [np.stack(values) for values in zip(*(tagger.backend([samples])[0] for samples in windows), strict=True)]


@pytest.mark.parametrize(
    ("window", "hop", "shortest"),  # in hops of the front end
    [
        *[(12, 2, 0), (12.3, 2, 0), (12, 2.5, 0), (12, 8, 0), (12, 11, 0), (12, 15, 0), (6, 1, 0), (1, 1, 0), (0.4, 0.2, 0)],
        *[(12, 2, 12.01), (12, 2, 14.6), (12.3, 3, 25)],
    ],
)
def test_results_are_those_of_windows_alone(tagger: AudioTagger, window: float, hop: float, shortest: float) -> None:
    window, hop, shortest = (round(value * tagger.backend.hop_size) for value in (window, hop, shortest))
    for length in (2 * window, window + hop + 7, window // 2 + 1):
        sound = NOISE[:length]
        shared = overlapping.OverlappingWindows(tagger.backend, window, hop, shortest)
        _, _, *found = zip(*tagger.compute_windows(cut_windows([sound], window, hop), shared), strict=True)
        for values, expected in zip(found, alone(tagger, sound, window, hop, shortest), strict=True):
            np.testing.assert_allclose(np.stack(values), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_frames_that_windows_share_are_computed_once(tagger: AudioTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = []
    spectrograms = tagger.backend.spectrograms

    def counted(waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        samples.extend(map(len, waveforms))
        return spectrograms(waveforms)

    monkeypatch.setattr(tagger.backend, "spectrograms", counted)
    rate, step = tagger.sample_rate, tagger.backend.hop_size
    rows = tagger.tag_windows(NOISE[: 160 * step], rate, window=60 * step / rate, hop=10 * step / rate).scores
    assert len(rows) == 11 and sum(samples) < 0.4 * 11 * 60 * step
    assert rows.std(0).max() > 0.01  # that the scores can tell windows apart


def test_a_stream_in_pieces_gives_the_scores_of_the_file(tagger: AudioTagger) -> None:
    rate, step = tagger.sample_rate, tagger.backend.hop_size
    sound, options = NOISE[: 170 * step + 11], {"window": 40 * step / rate, "hop": 10 * step / rate}
    stream = StreamTagger(tagger, rate, **options)
    windows = [window for start in range(0, len(sound), 777) for window in stream.windows(sound[start : start + 777])]
    scores = np.stack([scores for *_, scores in windows + stream.last_windows()])
    np.testing.assert_allclose(scores, alone(tagger, sound, 40 * step, 10 * step)[0], rtol=0, atol=1e-5)


def test_two_streams_of_one_tagger_do_not_mix(tagger: AudioTagger) -> None:
    rate, step = tagger.sample_rate, tagger.backend.hop_size
    options = {"window": 20 * step / rate, "hop": 5 * step / rate}
    sounds = NOISE[: 60 * step], NOISE[60 * step : 120 * step]
    streams = [StreamTagger(tagger, rate, **options) for _ in sounds]
    scores = [[], []]
    for start in range(0, 60 * step, 5 * step):
        for stream, sound, found in zip(streams, sounds, scores, strict=True):
            found += [row for *_, row in stream.windows(sound[start : start + 5 * step])]
    for sound, found in zip(sounds, scores, strict=True):
        np.testing.assert_allclose(np.stack(found), alone(tagger, sound, 20 * step, 5 * step)[0], rtol=0, atol=1e-5)


def test_the_parts_of_an_exported_model_are_loaded_for_many_windows_only(
    bundled: AudioTagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlapping, "WHOLE_WINDOWS", 32)
    bundled.tag_windows(NOISE, 32000, window=0.5, hop=0.1)
    assert not bundled.backend.has_parts
