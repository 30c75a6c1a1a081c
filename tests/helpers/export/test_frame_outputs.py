"""Exported frame-wise networks give the scores of frames that torch gives, for any batch and length."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from helpers.export import graph
from helpers.export.onnx_writer import write
from helpers.export.runtime import BackendError, OnnxBackend
from helpers.tagger.torch_backend import TorchBackend
from models import checkpoints
from models.config import FrameWiseArch
from models.errors import UserError
from models.waveform import WaveformModel
from tests.golden.fill import fill_state_dict

RATE = 16000
VARIANTS = {
    "none": {},
    "tf": {"sequence_model": "tf", "sequence_size": 16, "sequence_heads": 2},
    "gru": {"sequence_model": "gru", "sequence_size": 16},
    "hybrid": {"sequence_model": "hybrid", "sequence_size": 16, "trained_heads": "both"},
    "attention": {"head_type": "attention"},
}


def waveforms(batch: int, seconds: float) -> np.ndarray:
    noise = np.random.default_rng(int(10 * seconds)).standard_normal((batch, round(seconds * RATE)))
    return (0.1 * noise * np.linspace(0.01, 1, noise.shape[1])).astype(np.float32)


@pytest.fixture(scope="module", params=VARIANTS)
def network(request):
    made = FrameWiseArch(5, 0.1, **VARIANTS[request.param]).build().eval()
    fill_state_dict(made.state_dict())
    return made


def test_outputs_are_those_of_torch(network):
    session = onnxruntime.InferenceSession(graph.to_onnx(network, "test").SerializeToString())
    for batch, seconds in ((1, 0.5), (3, 3.0), (1, 10.0), (1, 30.0), (3, 0.02)):
        x = waveforms(batch, seconds)
        outputs = session.run(("scores", "embedding", "frame_scores", "frame_embeddings"), {"waveform": x})
        with torch.no_grad():
            frames = WaveformModel(network).eval().forward_frames(torch.from_numpy(x))
        expected = frames.clip_logits.sigmoid(), frames.embedding.mean(1), frames.logits.sigmoid(), frames.embedding
        for output, values in zip(outputs, expected, strict=True):
            assert output.shape == values.shape
            assert np.abs(output - values.numpy()).max() <= 1e-4 * max(1, values.abs().max())


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_weights_in_fewer_bits(weights, tmp_path):
    network = FrameWiseArch(5, 0.4, "gru", 64).build().eval()
    exact = graph.to_onnx(network, "test")
    write(tmp_path / "exact.onnx", exact)
    write(tmp_path / "small.onnx", graph.to_onnx(network, "test", weights=weights))
    share = (tmp_path / "small.onnx").stat().st_size / (tmp_path / "exact.onnx").stat().st_size
    assert share < (0.6 if weights == "float16" else 0.4)
    x = [*waveforms(1, 3.0)]
    (scores, _), (expected, _) = (OnnxBackend(tmp_path / f"{name}.onnx").frames(x)[0] for name in ("small", "exact"))
    assert 0 < np.abs(scores - expected).max() < 0.02


def test_backends_agree(tmp_path):
    network = FrameWiseArch(5, 0.1).build().eval()
    checkpoints.save(tmp_path / "model.pt", network)
    write(tmp_path / "model.onnx", graph.to_onnx(network, "test"))
    exported, plain = OnnxBackend(tmp_path / "model.onnx", threads=2), TorchBackend(tmp_path / "model.pt", "cpu")
    assert exported.step_seconds == plain.step_seconds == 0.04
    clips = [waveforms(1, seconds)[0] for seconds in (1.0, 0.7, 1.0)]
    for backend in (exported, plain):
        found = backend.frames(clips)
        assert [scores.shape for scores, _ in found] == [(25, 5), (18, 5), (25, 5)]
        assert found[0][0].dtype == found[0][1].dtype == np.float32 and found[0][1].shape == (25, 96)
        for (scores, embeddings), (expected, expected_embeddings) in zip(found, plain.frames(clips), strict=True):
            np.testing.assert_allclose(scores, expected, atol=1e-4)
            np.testing.assert_allclose(embeddings, expected_embeddings, atol=1e-4)
        for (clip_scores, _), (scores, _) in zip(backend(clips), found, strict=True):
            np.testing.assert_allclose(clip_scores, scores.max(0), atol=1e-4)
    exported.from_spectrograms(exported.spectrograms(clips))  # front end and network apart
    assert exported.has_parts
    np.testing.assert_allclose(exported.frames(clips)[1][0], found[1][0], atol=1e-4)


def test_clip_models_have_no_frames(tmp_path):
    network = FrameWiseArch(5, 0.1, trained_heads="weak").build().eval()
    checkpoints.save(tmp_path / "weak.pt", network)
    write(tmp_path / "weak.onnx", graph.to_onnx(network, "weak"))
    for backend in (
        TorchBackend(tmp_path / "weak.pt", "cpu"),
        OnnxBackend(tmp_path / "weak.onnx"),
        OnnxBackend("resources/mn04_distilled.onnx"),
    ):
        assert backend.step_seconds is None
        with pytest.raises(UserError, match="frame-wise"):
            backend.frames([np.zeros(16000, np.float32)])


def test_a_stretched_time_axis_is_not_exported():
    with pytest.raises(UserError, match="seq_len"):
        graph.to_onnx(FrameWiseArch(5, 0.1, seq_len=250).build(), "test")


def test_a_file_must_give_the_frames_that_it_promises(tmp_path):
    network = FrameWiseArch(5, 0.1).build().eval()
    model = graph.to_onnx(network, "test")
    [output] = [output for output in model.graph.output if output.name == "frame_scores"]
    model.graph.output.remove(output)
    write(tmp_path / "missing.onnx", model)
    with pytest.raises(BackendError, match="frame_scores"):
        OnnxBackend(tmp_path / "missing.onnx")
