"""ExecuTorch files for its XNNPACK backend: waveforms of one length in, scores and embedding out.

The file's method `about` returns labels and sample rate as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from helpers.export.static_model import CLIP_SECONDS, StaticModel, about, clip_samples, require
from models.errors import UserError
from models.network import MobileNetV3

WEIGHTS = ("float32", "int8")


def to_executorch(network: MobileNetV3, name: str, *, weights: str = "float32", seconds: float = CLIP_SECONDS) -> bytes:
    """Return a file: method forward, waveform (1, samples) -> scores (1, K), embedding (1, C), for clips of `seconds`.

    `weights` int8: linear layers compute in 8 bits, with a scale for each input; convolutions stay float32. Raises `UserError` for
    a network that cannot be exported.
    """
    if weights not in WEIGHTS:
        raise UserError(f"ExecuTorch files keep weights in {' or '.join(WEIGHTS)}, not in {weights}")
    require("executorch", "executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    samples = clip_samples(network, name, seconds)
    model = StaticModel(network, samples)
    if weights == "int8":
        model.network.round_weights()
        model.network = with_int8_linear_layers(model.network, model.front_end(model.example()))
    program = to_edge_transform_and_lower(
        torch.export.export(model, (model.example(),)),
        partitioner=[XnnpackPartitioner()],
        constant_methods={"about": about(network, name, samples, weights)},
    )
    return program.to_executorch().buffer


def with_int8_linear_layers(network: nn.Module, spectrogram: torch.Tensor) -> nn.Module:
    """Quantize linear layers: weights by output channel, inputs when they are there."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, config)
    prepared = prepare_pt2e(torch.export.export(network, (spectrogram,)).module(), quantizer)
    prepared(spectrogram)
    return convert_pt2e(prepared)


def planned_bytes(model: nn.Module, example: torch.Tensor) -> int:
    """Return the memory that ExecuTorch plans for inputs, outputs and all between of a model with portable operators alone."""
    from executorch.exir import to_edge_transform_and_lower

    program = to_edge_transform_and_lower(torch.export.export(model, (example,))).to_executorch()
    return sum(program.executorch_program.execution_plan[0].non_const_buffer_sizes)


def load_executorch(content: bytes) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function from waveforms (samples,) float32 to scores (K,) and embedding (C,), computed by ExecuTorch."""
    require("executorch", "executorch")
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)  # which holds the content, and the method once it is loaded

    def compute(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, embedding = program.load_method("forward").execute([torch.from_numpy(waveform)[None]])
        return scores[0].numpy(), embedding[0].numpy()

    return compute


def executorch_metadata(content: bytes) -> dict[str, Any]:
    """Return what a file says about its model."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    return json.loads(program.load_method("about").execute([])[0])
