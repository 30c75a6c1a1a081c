"""Front end and network of an exported file apart."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from helpers.export.cache import WEIGHTS
from helpers.export.graph import to_onnx
from helpers.export.parts import front_end_part, network_part
from models.config import Arch
from models.errors import UserError
from models.network import MobileNetV3

WAVEFORM = np.random.default_rng(0).normal(0, 0.1, (2, 9000)).astype(np.float32)


def run(content: bytes, value: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_parts_one_after_the_other_give_what_the_whole_gives(weights: str) -> None:
    torch.manual_seed(0)
    network = MobileNetV3(Arch(num_classes=3, width_mult=0.2)).eval()
    whole = to_onnx(network, "tiny", weights=weights).SerializeToString()
    front_end = front_end_part(memoryview(whole), 128)
    rest = network_part(memoryview(whole), 128, 3, network.embedding_size)
    for part in (front_end, rest):
        onnx.checker.check_model(onnx.load_from_string(part))
    [spectrogram] = run(front_end, WAVEFORM)
    for values, expected in zip(run(rest, spectrogram), run(whole, WAVEFORM), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert len(front_end) + len(rest) < len(whole) + 10_000  # neither holds what only the other needs


def small_model(cut: str) -> bytes:
    """waveform + c = `cut`; scores and embedding are `cut` times c, which both parts use, kept in 8 bits with a scale."""
    nodes = [
        helper.make_node("Cast", ["c8"], ["c16"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["c16", "scale"], ["c"]),
        helper.make_node("Add", ["waveform", "c"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "axes"], [cut]),
        helper.make_node("Mul", [cut, "c"], ["product"]),
        helper.make_node("Flatten", ["product"], ["scores"]),
        helper.make_node("Identity", ["scores"], ["embedding"]),
    ]
    constants = {"c8": np.array([4], np.int8), "scale": np.array([0.5], np.float32), "axes": np.array([1, 2])}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("waveform", "samples"), ("scores", 5), ("embedding", 5))
    ]
    graph = helper.make_graph(nodes, "small", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_what_both_parts_need_is_in_both() -> None:
    content = memoryview(small_model("spectrogram"))
    waveform = np.arange(5, dtype=np.float32)[None]
    [spectrogram] = run(front_end_part(content, 1), waveform)
    np.testing.assert_array_equal(spectrogram, waveform[:, None, None] + 2)
    scores, _ = run(network_part(content, 1, 5, 5), spectrogram)
    np.testing.assert_array_equal(scores, 2 * (waveform + 2))


def test_a_graph_without_a_spectrogram_is_refused() -> None:
    content = memoryview(small_model("other"))
    with pytest.raises(UserError, match="spectrogram"):
        front_end_part(content, 1)
    with pytest.raises(UserError, match="spectrogram"):
        network_part(content, 1, 5, 5)
