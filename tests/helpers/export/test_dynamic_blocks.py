"""Exported dynamic networks compute what PyTorch computes, for any batch and length."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.dynamic import random_network
from helpers.export.graph import to_onnx
from helpers.export.runtime import BackendError, OnnxBackend
from models.config import DyMNArch
from models.DyMN import DyMN

VARIANTS = [
    {}, {"no_dyconv": True}, {"no_dyrelu": True}, {"no_ca": True}, {"use_dy_blocks": "replace_se"},
    {"dyrelu_k": 3, "dyconv_k": 2, "strides": (2, 2, 1, 1)}, {"dyrelu_k": 1},
]  # fmt: skip


def noises(batch: int, frames: int) -> torch.Tensor:
    """Spectrograms (B, 1, 128, frames) of stationary noises, each with a spectrum and a course of its own."""
    return torch.randn(batch, 1, 128, 1) + torch.randn(batch, 1, 1, frames) + torch.randn(batch, 1, 128, frames)


def network(**variant: object) -> DyMN:
    """Weights at which kernels differ between examples, and norms that fit."""
    torch.manual_seed(0)
    made = DyMN(DyMNArch(5, 0.1, T_max=2.0, **variant)).train()
    for module in made.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, 0.2 / module.in_features**0.5)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    with torch.no_grad():
        made(noises(8, 300))
    return made.eval()


def exported(made: DyMN) -> onnxruntime.InferenceSession:
    model = to_onnx(made, "small", network_only=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_scores_and_embeddings(variant):
    made = network(**variant)
    session = exported(made)
    for batch, frames in ((1, 3000), (2, 50), (7, 101)):
        x = noises(batch, frames)
        with torch.no_grad():
            logits, embedding = made(x)
        results = session.run(None, {"spectrogram": x.numpy()})
        for result, expected in zip(results, (logits.sigmoid(), embedding), strict=True):
            assert np.abs(result - expected.numpy()).max() < 1e-4 * max(1, expected.abs().max())
        assert batch == 1 or embedding.std(0).max() > 1e-2


def test_clips_alone_and_together():
    made = network()
    session = exported(made)
    x = noises(3, 80).numpy()
    together, _ = session.run(None, {"spectrogram": x})
    alone = [session.run(None, {"spectrogram": one[None]})[0] for one in x]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


def test_the_temperature_is_exported():
    made = network()
    x = noises(1, 80).numpy()
    before, _ = exported(made).run(None, {"spectrogram": x})
    made.set_temperature(0.1)
    after, _ = exported(made).run(None, {"spectrogram": x})
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize(("weights", "apart", "share"), [("float16", 0.1, 0.6), ("int8", 0.4, 0.4)])
def test_small_weights(weights: str, apart: float, share: float) -> None:
    """Kernels within the blocks are rounded too. Random weights multiply errors; bounds are standard deviations."""
    torch.manual_seed(0)
    x = noises(2, 100)
    made = random_network(DyMNArch(width_mult=0.4), x)
    contents = [to_onnx(made, "small", network_only=True, weights=kind).SerializeToString() for kind in ("float32", weights)]
    sessions = [onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]) for content in contents]
    expected, found = (session.run(["embedding"], {"spectrogram": x.numpy()})[0] for session in sessions)
    assert 0 < np.square(found - expected).mean() ** 0.5 < apart * expected.std()
    assert len(contents[1]) < share * len(contents[0])


def test_front_end_and_network_apart_compute_the_same() -> None:
    backend = OnnxBackend("small.onnx", 1, to_onnx(network(), "small").SerializeToString())
    waveforms = [np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32) for count in (16000, 40000)]
    expected = backend(waveforms)
    for result, whole in zip(backend.from_spectrograms(backend.spectrograms(waveforms)), expected, strict=True):
        for one, other in zip(result, whole, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_weights_of_blocks_that_are_not_finite_are_refused():
    model = to_onnx(network(), "small")
    body = next(node for node in model.graph.node if node.op_type == "Scan").attribute[0].g
    tensor = max(body.initializer, key=lambda one: len(one.raw_data))
    OnnxBackend("small.onnx", 1, model.SerializeToString())
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[-1] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(BackendError, match="not finite.*block_"):
        OnnxBackend("small.onnx", 1, model.SerializeToString())
