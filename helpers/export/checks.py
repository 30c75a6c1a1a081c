"""What is checked of an exported file before it is used: its metadata and its weights. Nothing here imports torch or onnx."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from helpers.export.cache import FORMAT_VERSION, WEIGHTS
from models.config import ARCH_LIMITS, MEL_LIMITS, is_number, is_whole
from models.errors import UserError

FLOATS = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}  # of TensorProto.DataType
EXTERNAL = 1  # of TensorProto.DataLocation
_GRAPH, _INITIALIZER = 7, 5  # numbers of fields in onnx.proto, of ModelProto and of GraphProto
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
    }.items():
        require(name, is_whole(metadata.get(name)) and low <= metadata[name] <= high)
    require("model_name", isinstance(metadata.get("model_name"), str))
    require("single_label", isinstance(metadata.get("single_label"), bool))
    require("weights", metadata.get("weights") in WEIGHTS)
    seconds = metadata.get("clip_seconds", "missing")
    require("clip_seconds", seconds is None or (is_number(seconds) and seconds > 0))
    labels = metadata.get("labels")
    require("labels", isinstance(labels, list) and all(isinstance(label, str) for label in labels))
    if len(labels) != metadata["num_classes"]:
        raise UserError(f"it has {len(labels)} labels for {metadata['num_classes']} classes")
    return metadata


def check_weights(content: memoryview) -> None:
    """Raise `UserError` for weights in a serialised model that are not finite, or that are kept in other files."""
    tensors = [dict(_fields(tensor)) for graph in _values(content, _GRAPH) for tensor in _values(graph, _INITIALIZER)]
    with np.errstate(over="ignore", invalid="ignore"):
        for fields in tensors:
            if fields.get(_LOCATION) == EXTERNAL:
                raise UserError("it keeps weights in other files")
            kind = FLOATS.get(fields.get(_DATA_TYPE))
            data = fields.get(_RAW_DATA) or fields.get(_FLOAT_DATA, b"")
            if kind is None or len(data) % kind.itemsize:
                continue
            values = np.frombuffer(data, kind)
            is_sound = math.isfinite(np.add.reduce(values))  # hardly ever not, so few are looked at twice
            if not is_sound and not np.isfinite(values).all():
                name = bytes(fields.get(_NAME, b"")).decode(errors="replace")
                raise UserError(f"it has weights that are not finite (first in {name!r:.100})")


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


def _values(message: memoryview, number: int) -> Iterator[Any]:
    return (value for field, value in _fields(message) if field == number)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a serialised protocol buffer: their numbers, and integers or bytes."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, position = _varint(message, position)
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number at a position, seven bits a byte, and the position behind it."""
    value = shift = 0
    while (byte := message[position]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        position += 1
    return value | byte << shift, position + 1
