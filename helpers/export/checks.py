"""What is checked of an exported file before it is used: its metadata and its weights. Nothing here imports torch or onnx."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from helpers.export.cache import FORMAT_VERSION, WEIGHTS
from helpers.export.protobuf import fields, repeated
from models.config import ARCH_LIMITS, is_number, is_whole
from models.errors import UserError
from models.mel_config import MEL_LIMITS

HALF = np.dtype("<f2")
FLOATS = {1: np.dtype("<f4"), 10: HALF, 11: np.dtype("<f8")}  # of TensorProto.DataType
EXTERNAL = 1  # of TensorProto.DataLocation
LARGE = 400  # bytes of a node; names and numbers of one that holds no tensors take less
_GRAPH = 7  # numbers of fields in onnx.proto, of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_ATTRIBUTE, _TENSOR, _BODY = 5, 5, 6  # of NodeProto, and of AttributeProto
_DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _LOCATION = 2, 4, 8, 9, 14  # of TensorProto


def checked_metadata(text: str) -> dict[str, Any]:
    """Read what `onnx_writer.set_metadata` wrote; `UserError` for anything else, other types and counts included."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"its metadata are no JSON ({error})") from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"it has format {version!r:.50} instead of {FORMAT_VERSION}")
    if metadata.get("input") != "waveform":
        raise UserError("it does not take waveforms; leave --network_only out")

    def require(name: str, is_right: bool) -> None:
        if not is_right:
            raise UserError(f"its {name} is {metadata.get(name)!r:.50}")

    for name, (low, high) in {
        "sample_rate": MEL_LIMITS["sample_rate"],
        "num_classes": (1, ARCH_LIMITS["num_classes"][1]),
        "embedding_size": (1, 1 << 20),
        "n_mels": MEL_LIMITS["n_mels"],
        "hop_size": MEL_LIMITS["hop_size"],
        "min_samples": (2, MEL_LIMITS["n_fft"][1]),
    }.items():
        require(name, is_whole(metadata.get(name)) and low <= metadata[name] <= high)
    require("model_name", isinstance(metadata.get("model_name"), str))
    require("single_label", isinstance(metadata.get("single_label"), bool))
    require("weights", metadata.get("weights") in WEIGHTS)
    seconds = metadata.get("clip_seconds", "missing")
    require("clip_seconds", seconds is None or (is_number(seconds) and seconds > 0))
    step = metadata.setdefault("step_seconds", None)  # files of clip models have none
    require("step_seconds", step is None or (is_number(step) and step > 0))
    labels = metadata.get("labels")
    require("labels", isinstance(labels, list) and all(isinstance(label, str) for label in labels))
    if len(labels) != metadata["num_classes"]:
        raise UserError(f"it has {len(labels)} labels for {metadata['num_classes']} classes")
    return metadata


def check_weights(content: memoryview) -> None:
    """Raise `UserError` for weights in a serialised model that are not finite, or that are kept in other files."""
    with np.errstate(over="ignore", invalid="ignore"):
        for tensor in (fields(tensor) for graph in repeated(content, _GRAPH) for tensor in _tensors(graph)):
            about = dict(tensor)
            if about.get(_LOCATION) == EXTERNAL:
                raise UserError("it keeps weights in other files")
            kind = FLOATS.get(about.get(_DATA_TYPE))
            for data in (value for number, value in tensor if kind and number in (_RAW_DATA, _FLOAT_DATA)):
                if len(data) % kind.itemsize == 0 and not _is_finite(np.frombuffer(data, kind)):
                    name = bytes(about.get(_NAME, b"")).decode(errors="replace")
                    raise UserError(f"it has weights that are not finite (first in {name!r:.100})")


def _tensors(graph: memoryview) -> Iterator[memoryview]:
    """Yield the tensors of a graph, of its large nodes, and of the graphs that these hold, as those of dynamic blocks do."""
    for number, value in fields(graph):
        if number == _INITIALIZER:
            yield value
        elif number == _NODE and len(value) > LARGE:
            for kind, held in (pair for attribute in repeated(value, _ATTRIBUTE) for pair in fields(attribute)):
                if kind == _TENSOR:
                    yield held
                elif kind == _BODY:
                    yield from _tensors(held)


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are. The sum of finite ones is hardly ever not, so few are looked at twice."""
    if values.dtype == HALF:  # whose sums are slow; what is not finite has the largest exponent
        return bool((values.view("<u2") & 0x7FFF).max(initial=0) < 0x7C00)
    return math.isfinite(np.add.reduce(values)) or bool(np.isfinite(values).all())


def check_scores_frames(backend: Any) -> None:
    """Raise `UserError` unless a backend's model scores frames."""
    if backend.step_seconds is None:
        raise UserError("this model scores whole clips, not frames; use a frame-wise one, such as fmn10_strong")


def check_waveforms(waveforms: Sequence[np.ndarray]) -> None:
    """Raise `UserError` unless each is (samples,) float32, not empty, and finite."""
    for waveform in waveforms:
        if not isinstance(waveform, np.ndarray):
            raise UserError(f"expected float32 waveforms of shape (samples,), got {type(waveform).__name__}")
        if waveform.ndim != 1 or len(waveform) == 0 or waveform.dtype != np.float32:
            raise UserError(f"expected float32 waveforms of shape (samples,), got {waveform.dtype} {waveform.shape}")
        if not np.isfinite(waveform).all():
            raise UserError("a waveform has samples that are not finite (NaN or infinite); clean it first")


def check_results(results: Sequence[tuple[np.ndarray, np.ndarray]], name: str) -> None:
    """Raise `UserError` unless all scores and embeddings are finite."""
    if not all(np.isfinite(values).all() for result in results for values in result):
        raise UserError(f"{name} computes values that are not finite (NaN or infinite); use another model")
