"""What every exported graph needs: nodes and constants, inputs and outputs, metadata, the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from datasets.labels import default_labels
from helpers.export.cache import FORMAT_VERSION, METADATA_KEY
from helpers.export.weights import MIN_VALUES, to_int8
from models.base import TaggingNetwork
from models.config import MelConfig
from models.files import write_bytes

OPSET, IR_VERSION = 18, 10  # what ONNX Runtime 1.18 (2024) and later read
WAVEFORM_SHAPE = {"waveform": ["batch", "samples"]}


class Graph:
    """Nodes and constants of a graph under construction; every method that adds a node returns the name of its output."""

    def __init__(self, weights: str = "float32", prefix: str = "") -> None:
        """`weights`: one of `cache.WEIGHTS`, how weights are kept.

        `prefix` of all names: those within the body of an operation must differ from those around it.
        """
        self.weights, self.prefix = weights, prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, output: str | None = None, label: str | None = None, **attributes: Any) -> str:
        name = f"{self.prefix}{label or op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    def add_several(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs, whose names are returned."""
        name = f"{self.prefix}{op}_{len(self.nodes)}"
        names = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        return self.add_several("Split", [x, self.integers(*sizes)], len(sizes), axis=axis)

    def constant(self, value: Tensor | np.ndarray | float | Sequence[int], kind: type = np.float32) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        self.constants.append(numpy_helper.from_array(np.asarray(array, kind, order="C"), name))
        return name

    def weight(self, tensor: Tensor) -> str:
        """Add weights of the network, axis 0 being that of output channels, in the smallest form that `weights` allows.

        Vectors, which are biases mostly, stay in float32: they take little, and most of the error of float16 would come from them.
        So does what exceeds float16.
        """
        array = tensor.detach().cpu().numpy()
        if self.weights == "float32" or array.ndim < 2 or np.abs(array).max() > np.finfo(np.float16).max:
            return self.constant(array)
        if self.weights == "float16" or array.size < MIN_VALUES:
            return self._float32(array, np.float16)
        values, scale, columns = to_int8(array)
        scaled = self.add("Mul", self._float32(values, np.int8), self._float32(scale, np.float16))
        return self.add("Mul", scaled, self._float32(columns, np.float16))

    def _float32(self, array: np.ndarray, kind: type) -> str:
        return self.add("Cast", self.constant(array, kind), to=TensorProto.FLOAT)

    def integers(self, *values: int) -> str:
        """Add a list of int64, as shapes, axes and indices are given."""
        return self.constant(values, np.int64)


def spectrogram_shape(mel: MelConfig) -> dict[str, list[str | int]]:
    return {"spectrogram": ["batch", 1, mel.n_mels, "frames"]}


def make_model(graph: Graph, inputs: dict[str, list[str | int]], outputs: dict[str, list[str | int]]) -> onnx.ModelProto:
    """Make a model of a graph; `inputs` and `outputs` are names and shapes, with names for free axes."""
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "tagger", *ports, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="export.py",
    )  # fmt: skip
    onnx.checker.check_model(model)
    return model


def set_metadata(model: onnx.ModelProto, network: TaggingNetwork, name: str, network_only: bool, weights: str) -> None:
    """Store `describe` as one JSON text."""
    metadata = describe(network, name, network_only, weights)
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})


def describe(network: TaggingNetwork, name: str, network_only: bool, weights: str) -> dict[str, Any]:
    """Return all that is needed to feed an exported file and to read its scores, as JSON has it."""
    mel, classes = network.mel, network.arch.num_classes
    frames = {} if network.step_seconds is None else {"step_seconds": network.step_seconds}
    return {
        "format_version": FORMAT_VERSION,
        "model_name": name,
        "input": "spectrogram" if network_only else "waveform",
        "sample_rate": mel.sample_rate,
        "n_mels": mel.n_mels,
        "hop_size": mel.hop_size,
        "min_samples": mel.min_samples,
        "num_classes": classes,
        "embedding_size": network.embedding_size,
        "single_label": network.single_label,
        "clip_seconds": network.clip_seconds,
        "labels": list(network.labels or default_labels(classes)),
        "weights": weights,
    } | frames


def write(path: Path, model: onnx.ModelProto) -> None:
    """Write a file atomically."""
    write_bytes(path, model.SerializeToString())
