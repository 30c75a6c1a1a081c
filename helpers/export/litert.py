"""LiteRT (formerly TensorFlow Lite) files: waveforms of one length in, scores and embedding out.

Labels and sample rate are in the file as well: it is also a ZIP archive of metadata.json and labels.txt, as LiteRT's tools have it.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from helpers.export.static_model import CLIP_SECONDS, StaticModel, about, clip_samples, require
from helpers.export.weights import MIN_VALUES
from models.network import MobileNetV3

METADATA, LABELS = "metadata.json", "labels.txt"
NETWORK = ".*StaticNetwork.*"  # names of the network's tensors; those of the front end are kept in float32


class NamedOutputs(nn.Module):
    """A model whose outputs have names."""

    def __init__(self, model: StaticModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        scores, embedding = self.model(waveform)
        return {"scores": scores, "embedding": embedding}


def to_litert(network: MobileNetV3, name: str, *, weights: str = "float32", seconds: float = CLIP_SECONDS) -> bytes:
    """Return a file: waveform (1, samples) -> scores (1, K), embedding (1, C), for clips of `seconds`.

    `weights`: float32, float16 or int8 (tensors of `MIN_VALUES` values or more, by output channel); LiteRT computes in float32 and
    turns them into float32 when it loads the file. Raises `UserError` for a network that cannot be exported.
    """
    require("litert_torch", "litert")
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    import litert_torch

    samples = clip_samples(network, name, seconds)
    model = StaticModel(network, samples)
    if weights == "int8":
        model.network.round_weights()
    converted = litert_torch.convert(NamedOutputs(model).eval(), sample_kwargs={"waveform": model.example()})
    content = converted.model_content()
    if weights != "float32":
        content = with_small_weights(content, weights)
    return with_files(content, about(network, name, samples, weights))


def with_small_weights(content: bytes, weights: str) -> bytes:
    """Keep the network's weights in float16 or int8."""
    from ai_edge_quantizer import qtyping, quantizer

    by_channel = qtyping.TensorQuantizationConfig(8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE)
    half = qtyping.TensorQuantizationConfig(16, symmetric=True, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=by_channel if weights == "int8" else half,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
        min_weight_elements=MIN_VALUES if weights == "int8" else 0,
    )
    algorithm = quantizer.AlgorithmName.MIN_MAX_UNIFORM_QUANT if weights == "int8" else quantizer.AlgorithmName.FLOAT_CASTING
    job = quantizer.Quantizer(bytearray(content))
    job.update_quantization_recipe(NETWORK, qtyping.TFLOperationName.ALL_SUPPORTED, config, algorithm)
    return bytes(job.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)


def with_files(content: bytes, metadata: str) -> bytes:
    """Append an archive of the metadata and of the labels, one a line."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(METADATA, metadata)
        archive.writestr(LABELS, "".join(f"{label}\n" for label in json.loads(metadata)["labels"]))
    return buffer.getvalue()


def load_litert(content: bytes, threads: int = 1) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function from waveforms (samples,) float32 to scores (K,) and embedding (C,), computed by LiteRT."""
    require("ai_edge_litert", "litert")
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content, num_threads=threads).get_signature_runner()

    def compute(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        results = run(waveform=waveform[None])
        return results["scores"][0], results["embedding"][0]

    return compute


def litert_metadata(content: bytes) -> dict[str, Any]:
    """Return what a file says about its model."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read(METADATA))
