"""Frame-wise models: frames of long sound in windows, and the events of files and streams."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.optim.swa_utils import update_bn

from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from helpers.frame_windows import FrameWindows, SeamlessFrames
from helpers.tagger import AudioTagger, StreamTagger
from helpers.tagger import audio_tagger as module
from helpers.tagger.windows import cut_windows
from models import checkpoints
from models.errors import UserError
from models.frame_wise import get_model
from models.preprocess import AugmentMelSTFT
from tests.frame_loudness import FrameLoudness

RATE, STEP = 16000, 640


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> AudioTagger:
    monkeypatch.setattr(module, "load_backend", lambda *_: FrameLoudness())
    return AudioTagger("any", batch_size=2)


def bursts(seconds: float, *times: tuple[float, float]) -> np.ndarray:
    """Silence with noise of level 0.6 from the first to the second of each pair of seconds."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    for start, end in times:
        part = sound[round(start * RATE) : round(end * RATE)]
        part[:] = 0.6 * np.sign(np.random.default_rng(0).standard_normal(len(part)))
    return sound


@pytest.mark.parametrize("length", [1, 640, 641, 99_999, 160_000, 160_001, 161_000, 256_000, 256_640, 300_001, 1_000_000])
@pytest.mark.parametrize(("window", "hop"), [(10, 6), (10, 1), (5, 0.4)])
def test_frames_of_windows_are_those_of_the_whole(length: int, window: float, hop: float) -> None:
    sound = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    sound[np.arange(length) // 4000 % 5 > 0] *= 0.1
    expected = FrameLoudness().frames([sound])[0]
    cut = FrameWindows.of_seconds(RATE, 0.04, window, hop)
    windows = cut_windows([sound[:7777], sound[7777:]], cut.window, cut.hop, cut.step)
    frames = SeamlessFrames(cut, FrameLoudness().frames).all(windows, 3)
    found = [np.concatenate(values) for values in zip(*frames, strict=True)]
    for values, others in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values, others)


def test_windows_overlap_and_begin_at_steps() -> None:
    cut = FrameWindows.of_seconds(RATE, 0.04, 10, 6)
    windows = list(cut_windows([np.zeros(500_321, np.float32)], cut.window, cut.hop, cut.step))
    assert [start for start, _ in windows] == [start for start, _ in cut.cut(np.zeros(500_321, np.float32))]
    assert all(start % STEP == 0 for start, _ in windows) and windows[-1][0] + len(windows[-1][1]) == 500_321
    assert all(start + len(waveform) - later >= 4 * RATE for (start, waveform), (later, _) in pairwise(windows))


def test_frames_have_times_of_the_recording(tagger: AudioTagger, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, bursts(30, (12, 12.5)), RATE, subtype="FLOAT")
    frames = tagger.frames(path, start=5, end=25.03)
    assert (frames.source, frames.end, frames.step_seconds, frames.labels) == (str(path), 25.03, 0.04, ("peak", "around"))
    np.testing.assert_allclose(frames.times, 5 + 0.04 * np.arange(501))
    np.testing.assert_array_equal(frames.times[frames.scores[:, 0] > 0.5], frames.times[175:188])
    assert frames.scores.shape == (501, 2) and frames.embeddings.shape == (501, 1)
    assert [(event.label, event.start, event.end) for event in frames.events(0.5)] == [
        ("around", pytest.approx(11.2), pytest.approx(13.32)),
        ("peak", pytest.approx(12.0), pytest.approx(12.52)),
    ]


def test_events_across_seams_and_at_the_ends(tagger: AudioTagger) -> None:
    times = [(0, 1), (7, 9.5), (14, 21), (28, 30.1)]
    found = tagger.events(bursts(30.1, *times), RATE, threshold=0.5, labels=["peak"])
    assert [(event.start, event.end) for event in found] == [(pytest.approx(a), pytest.approx(b, abs=0.04)) for a, b in times]
    assert (found.end, found[-1].end, found.sample_rate, len(found)) == (30.1, 30.1, RATE, 4)


def test_thresholds_of_classes(tagger: AudioTagger, tmp_path: Path) -> None:
    sound, table = bursts(12, (3, 4)), tmp_path / "thresholds.csv"
    table.write_text("label;threshold\nPeak;0.9\n")
    for thresholds in ({"peak": 0.9}, table, str(table), np.array([0.9, 0.3])):
        assert [event.label for event in tagger.events(sound, RATE, threshold=thresholds)] == ["around"]
    assert len(tagger.events(sound, RATE, median_frames=1)) == 2


@pytest.mark.parametrize(
    "content", ["label,threshold\npeek,0.5\n", "label,threshold\npeak,2\n", "label,threshold\npeak,x\n", "peak,0.5\n",
                "label,threshold\npeak,0.5\npeak,0.6\n"],
)  # fmt: skip
def test_tables_of_thresholds_with_mistakes(tagger: AudioTagger, tmp_path: Path, content: str) -> None:
    table = tmp_path / "thresholds.csv"
    table.write_text(content)
    with pytest.raises(UserError, match=r"thresholds\.csv"):
        tagger.events(bursts(1), RATE, threshold=table)


def test_mistakes(tagger: AudioTagger, loudness: AudioTagger) -> None:
    for mistake in ({"hop": 7}, {"window": 4}, {"hop": 0}, {"off_threshold": 0.1}, {"median_frames": 4}, {"threshold": 2}):
        with pytest.raises(UserError):
            tagger.events(bursts(1), RATE, **mistake)
    for mistake in ({"median_frames": 9}, {"threshold": {"peak": 0.1}}):
        with pytest.raises(UserError):
            loudness.events(bursts(1), RATE, **mistake)
    with pytest.raises(UserError):
        loudness.frames(bursts(1), RATE)


def test_events_of_a_model_that_tags_clips(loudness: AudioTagger) -> None:
    sound = bursts(12, (5, 6))
    timeline = loudness.tag_windows(sound, 32000, window=4, hop=1)
    assert list(loudness.events(sound, 32000, threshold=0.5)) == timeline.events(0.5)


@pytest.mark.parametrize("seconds", [0.5, 9.99, 10, 33.33])
@pytest.mark.parametrize("size", [1000, 40_000])
def test_a_stream_has_the_events_of_the_file(tagger: AudioTagger, seconds: float, size: int) -> None:
    rng = np.random.default_rng(1)
    sound = bursts(seconds) + np.repeat(rng.random(round(seconds * RATE) // 3200 + 1), 3200)[: round(seconds * RATE)].astype("f4")
    live = StreamTagger(tagger, RATE, threshold=0.5)
    changes = [event for i in range(0, len(sound), size) for event in live.feed(sound[i : i + size])] + live.finish()
    ended = [event for event in changes if event.end is not None]
    assert len(ended) * 2 == len(changes)
    expected = [(e.label, e.start, e.end, e.score) for e in tagger.events(sound, RATE, threshold=0.5)]
    assert sorted((e.label, e.start, e.end, e.score) for e in ended) == sorted(expected)


def test_the_latency_is_what_is_said(tagger: AudioTagger) -> None:
    """An event is reported within `latency` after its beginning and its end, once the first window is complete."""
    times = [(start, start + 0.73) for start in np.arange(11.0, 40, 1.37)]
    live = StreamTagger(tagger, RATE, threshold=0.5, labels=["peak"])
    sound, waits = bursts(45, *times), []
    for i in range(0, len(sound), 160):
        for event in live.feed(sound[i : i + 160]):
            waits.append((i + 160) / RATE - (event.start if event.end is None else event.end))
    assert len(waits) == 2 * len(times)
    assert live.latency == (2.2, 3.2) and live.latency[0] - 1e-6 <= min(waits) < max(waits) <= live.latency[1] + 0.011
    assert max(waits) - min(waits) > 0.7


def test_memory_does_not_grow_with_the_recording(tagger: AudioTagger) -> None:
    sound = np.zeros(600 * RATE, np.float32)  # 38 MB
    tracemalloc.start()
    tagger.events(sound, RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15_000_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small frame-wise network with random weights, whose scores are from 0 to 1."""
    torch.manual_seed(0)
    network = get_model(num_classes=4, width_mult=0.1)
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 6 * RATE)).astype(np.float32))
    front_end = AugmentMelSTFT.from_config(network.mel).eval()
    update_bn([front_end(sound * gain)[:, None] for gain in (0.01, 0.1, 1)], network)
    with torch.no_grad():
        logits = network.eval().forward_frames(front_end(sound)[:, None]).logits
        network.strong_head.weight.mul_(3 / logits.std())
    path = tmp_path_factory.mktemp("models") / "frames.pt"
    checkpoints.save(path, network)
    return path


@pytest.fixture(scope="module")
def wavering() -> np.ndarray:
    """Half a minute of noise whose level changes from tenth to tenth of a second."""
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.uniform(0, 0.3, 310), RATE // 10)
    return (rng.standard_normal(31 * RATE) * levels).astype(np.float32)


def test_frames_of_a_network_have_no_seams(checkpoint: Path, wavering: np.ndarray) -> None:
    tagger = AudioTagger(checkpoint, "cpu")
    [(whole, embeddings)] = tagger.backend.frames([wavering])
    frames = tagger.frames(wavering, RATE)
    assert frames.scores.shape == whole.shape == (775, 4) and frames.embeddings.shape == embeddings.shape
    assert whole.std() > 0.1
    assert np.abs(frames.scores - whole).max() < 0.1 and np.abs(frames.scores - whole).mean() < 0.01
    alone = tagger.frames(wavering, RATE, start=12, end=19).scores  # without the sound around it
    assert np.abs(alone[:3] - whole[300:303]).max() > 0.1


def test_both_backends_have_the_same_frames(checkpoint: Path, wavering: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / "frames.onnx", to_onnx(checkpoints.load_model(checkpoint), "frames"))
    sound = wavering[: 13 * RATE]
    torch_frames = AudioTagger(checkpoint, "cpu").frames(sound, RATE)
    onnx_frames = AudioTagger(tmp_path / "frames.onnx", backend="onnx").frames(sound, RATE)
    np.testing.assert_allclose(onnx_frames.scores, torch_frames.scores, atol=1e-3)
    np.testing.assert_allclose(onnx_frames.embeddings, torch_frames.embeddings, atol=1e-2)
    assert onnx_frames.step_seconds == torch_frames.step_seconds == 0.04


@pytest.mark.parametrize("hop", [6.0, 2.0])
def test_scores_of_a_stream_are_those_of_the_file_in_the_same_windows(checkpoint: Path, wavering: np.ndarray, hop: float) -> None:
    tagger = AudioTagger(checkpoint, "cpu")
    live = StreamTagger(tagger, RATE, hop=hop)
    sound = wavering[: 21 * RATE + 100]
    pieces = [window for i in range(0, len(sound), 30_000) for window in live.windows(sound[i : i + 30_000])] + live.last_windows()
    frames = tagger.frames(sound, RATE, hop=hop)
    np.testing.assert_allclose(np.concatenate([scores for *_, scores in pieces]), frames.scores, atol=1e-4)
    assert [start for start, *_ in pieces[1:]] == pytest.approx([end for _, end, _ in pieces[:-1]])
