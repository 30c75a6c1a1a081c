"""Weights in 8 and 16 bits: what they lose, what they save, and that ONNX Runtime turns them into float32 when it loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

import export as script
from helpers.export.cache import METADATA_KEY, WEIGHTS
from helpers.export.comparison import RECORDINGS, Difference, compare
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import Graph
from helpers.export.runtime import load_onnx
from helpers.export.weights import to_int8
from models import checkpoints
from models.config import HEAD_TYPES, Arch
from models.network import MobileNetV3


def test_values_are_rounded_to_multiples_of_a_scale_for_each_output_channel() -> None:
    weight = np.random.default_rng(0).normal(0, [[1], [100], [0]], (3, 4000)).astype(np.float32)
    values, scale, columns = to_int8(weight)
    assert values.shape == weight.shape and values.dtype == np.int8
    assert scale.shape == (3, 1) and scale.dtype == columns.dtype == np.float16 and (columns == 1).all()
    assert scale[1] > 50 * scale[0] and not values[2].any()
    scale = scale.astype(np.float32)
    inside = np.abs(values) < 127
    assert inside.mean() > 0.99 and (np.abs(values * scale - weight) <= 0.501 * scale)[inside].all()
    plain = np.abs(weight[:2]).max(1, keepdims=True) / 127
    plain_error = (np.rint(weight[:2] / plain) * plain - weight[:2]) ** 2
    assert ((values * scale - weight)[:2] ** 2).sum() < plain_error.sum()  # the scale is chosen


def test_small_columns_of_convolutions_are_rounded_less_coarsely() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (64, 64, 1, 1)).astype(np.float32)
    weight[:, 0] *= 100
    weight[:, 1] = 0
    values, scale, columns = to_int8(weight)
    assert columns.shape == (1, 64, 1, 1) and columns.max() == 1
    errors = np.abs(values * scale.astype(np.float32) * columns.astype(np.float32) - weight).mean((0, 2, 3))
    assert errors[1] == 0 and errors[2:].max() < 0.02  # one scale for the whole row would give 0.5


@pytest.mark.parametrize("value", [0, 1e-12, 60000])
def test_extreme_weights_stay_finite(value: float) -> None:
    weight = np.full((64, 64, 1, 1), value, np.float32)
    values, scale, columns = to_int8(weight)
    restored = values * scale.astype(np.float32) * columns.astype(np.float32)
    np.testing.assert_allclose(restored, weight, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_how_tensors_are_kept(weights: str) -> None:
    graph = Graph(weights)
    for tensor in (torch.ones(64, 64), torch.ones(2, 3), torch.ones(5000), torch.full((64, 64), 1e5)):
        graph.weight(tensor)
    kinds = {tuple(one.dims): onnx.TensorProto.DataType.Name(one.data_type) for one in graph.constants[:3]}
    matrix = {"float32": "FLOAT", "float16": "FLOAT16", "int8": "INT8"}[weights]
    assert kinds[64, 64] == matrix
    last = onnx.numpy_helper.to_array(graph.constants[-1])
    assert last.dtype == np.float32 and last.max() == 1e5  # not infinite, as in float16
    small = {tuple(one.dims): one.data_type for one in graph.constants}
    assert small[2, 3] == (onnx.TensorProto.FLOAT if weights == "float32" else onnx.TensorProto.FLOAT16)
    assert small[5000,] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_all_heads(head_type: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MobileNetV3(Arch(num_classes=60, width_mult=0.1, head_type=head_type)).eval()
    sizes, spectrogram = [], np.random.default_rng(0).normal(0, 1, (2, 1, 128, 60)).astype(np.float32)
    with torch.inference_mode():
        expected = network.scores(network(torch.from_numpy(spectrogram))[0]).numpy()
    for weights in WEIGHTS:
        content = to_onnx(network, "made", weights=weights, network_only=True).SerializeToString()
        scores = onnxruntime.InferenceSession(content).run(["scores"], {"spectrogram": spectrogram})[0]
        np.testing.assert_allclose(scores, expected, atol=1e-5 if weights == "float32" else 5e-3)
        sizes.append(len(content))
    assert sizes[0] > sizes[1] > sizes[2]


def test_they_are_float32_once_loaded(tmp_path: Path) -> None:
    """No operation of a run is there for them, so that a run takes the same time."""
    network, operations = checkpoints.load_model("mn04_distilled"), {}
    for weights in WEIGHTS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
        content = to_onnx(network, "made", weights=weights).SerializeToString()
        onnxruntime.InferenceSession(content, options)
        operations[weights] = sorted(node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node)
        assert all(
            one.data_type == onnx.TensorProto.FLOAT
            for one in onnx.load(tmp_path / "loaded.onnx").graph.initializer
            if len(one.dims) == 4
        )
    assert operations["int8"] == operations["float16"] == operations["float32"]


@pytest.mark.parametrize(("weights", "megabytes", "apart"), [("float16", 2.1, 0.005), ("int8", 1.15, 0.03)])
def test_the_bundled_model_stays_near(weights: str, megabytes: float, apart: float) -> None:
    network = checkpoints.load_model("mn04_distilled")
    model = to_onnx(network, "small", weights=weights)
    assert model.ByteSize() < 1e6 * megabytes
    found = compare(load_onnx(model.SerializeToString()), network, [RECORDINGS])
    assert found.clips == 4 and found.same_first == 1
    assert 1e-5 < found.largest < apart and found.mean < apart / 100


def test_difference() -> None:
    scores = np.array([[0.5, 0.1], [0.2, 0.9], [0.6, 0.5]])
    others = np.array([[0.5, 0.2], [0.2, 0.9], [0.4, 0.5]])
    found = Difference.between(scores, others)
    assert (found.clips, found.largest, found.mean) == (3, pytest.approx(0.2), pytest.approx(0.05))
    assert found.same_first == pytest.approx(2 / 3)


@pytest.mark.parametrize("network_only", [False, True])
def test_own_recordings_are_compared(
    network_only: bool, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for k in range(2):
        soundfile.write(folder / f"{k}.wav", np.random.default_rng(k).normal(0, 0.1, 4000 * (k + 1)), 16000)
    argv = ["--model_name", tiny_checkpoint, "--output", tmp_path / "x.onnx", *(["--network_only"] if network_only else [])]
    assert script.main([*map(str, argv), "--compare", str(folder)]) == 0
    metadata = {one.key: one.value for one in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert '"weights": "float32"' in metadata[METADATA_KEY]
    assert "2 recordings" in capsys.readouterr().out
    network = checkpoints.load_model(tiny_checkpoint)
    exact = compare(load_onnx((tmp_path / "x.onnx").read_bytes()), network, [folder], network_only=network_only)
    network.classifier[-1].bias.data += 1
    other = compare(load_onnx((tmp_path / "x.onnx").read_bytes()), network, [folder], network_only=network_only)
    assert exact.largest < 1e-5 < 0.01 < other.mean


def test_no_recordings_are_no_comparison(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--model_name", str(tiny_checkpoint), "--output", str(tmp_path / "x.onnx"), "--compare"]) == 0
    assert "differ" not in capsys.readouterr().out


@pytest.mark.parametrize("given", ["empty", "gone.wav"])
def test_missing_recordings_are_one_line(
    given: str, tiny_checkpoint: Path, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    (tmp_path / "empty").mkdir()
    argv = ["--model_name", tiny_checkpoint, "--output", tmp_path / "x.onnx", "--compare", tmp_path / given]
    assert given in failing_message(script.main, *argv)
    assert not (tmp_path / "x.onnx").exists()
