"""Attacks by checkpoints and ONNX files."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from helpers.export.cache import METADATA_KEY
from tests.fuzz.cases import Attack
from tests.fuzz.entries import CHECKPOINT, EXPORTED
from tests.fuzz.sandbox import OWNED
from tests.fuzz.values import CONTROL, LINE, nested

Content = dict[str, Any]


class Executed:
    """A pickle of this writes a file when it is read."""

    def __init__(self, secret: Path) -> None:
        self.path = secret.with_name(OWNED)

    def __reduce__(self) -> tuple[Callable, tuple[str, str]]:
        return open, (str(self.path), "w")


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def loaded(content: bytes) -> Content:
    return torch.load(io.BytesIO(content), weights_only=True)


def changed(change: Callable[[Content], object]) -> Callable[[bytes, Path], bytes]:
    """A checkpoint whose content is changed, or replaced by what `change` returns."""

    def make(content: bytes, _: Path) -> bytes:
        value = loaded(content)
        result = change(value)
        return saved(value if result is None else result)

    return make


def put(value: Any, *keys: str) -> Callable[[bytes, Path], bytes]:
    """A checkpoint with one other value."""

    def change(content: Content) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return changed(change)


def _weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[bytes, Path], bytes]:
    def apply(content: Content) -> None:
        key = "classifier.5.weight"
        content["model"][key] = change(content["model"][key])

    return changed(apply)


def _with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3, 5] = value
        return tensor

    return change


def repacked(content: bytes, change: Callable[[str, bytes], tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with other names or contents of its entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(*change(entry.filename, old.read(entry)))
    return buffer.getvalue()


def _bomb(content: bytes, _: Path) -> bytes:
    """Weights of 2 GB of zeros, compressed to 2 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry in old.infolist():
            if entry.filename.endswith("data.pkl"):
                with new.open(entry.filename, "w", force_zip64=True) as file:
                    for _ in range(512):
                        file.write(bytes(1 << 22))
            else:
                new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


def checkpoint_attacks() -> Iterator[Attack]:
    def attack(name: str, make: Callable[[bytes, Path], bytes], must_fail: bool = True) -> Attack:
        return Attack(CHECKPOINT, name, make, must_fail)

    for protocol in (0, 2, 4):
        yield attack(f"pickle that executes, protocol {protocol}", lambda _, secret, p=protocol: pickle.dumps(Executed(secret), p))
    yield attack("checkpoint that executes", lambda _, secret: saved({"model": Executed(secret)}))
    yield attack(
        "checkpoint that executes, old format", lambda _, secret: saved(Executed(secret), _use_new_zipfile_serialization=False)
    )
    yield attack("weights compressed to a thousandth", _bomb)
    yield attack("empty", lambda content, _: b"")
    yield attack("web page", lambda content, _: b"<!DOCTYPE html><html><body>404</body></html>")
    yield attack("text", lambda content, _: CONTROL.encode() * 100)
    yield attack("half", lambda content, _: content[: len(content) // 2])
    yield attack("zeros", lambda content, _: bytes(1 << 20))
    yield attack("nested pickle", lambda content, _: pickle.dumps(nested(400)) + b"(" * 100_000)
    yield attack("marks without end", lambda content, _: b"\x80\x02" + b"(" * 1_000_000)
    yield attack("text of 2^62 bytes", lambda content, _: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.")
    yield attack("number of 2^31 bytes", lambda content, _: b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.")
    for value in (None, 3, [], {}, "text", torch.zeros(3), {1: 2}, {"model": {}}):
        yield attack(f"holds {type(value).__name__} {str(value)[:12]!r}", lambda content, _, v=value: saved(v))
    yield attack("bare state dict", changed(lambda content: content["model"]))
    for key in ("model", "arch", "mel", "labels", "epoch", "metrics", "args"):
        yield attack(f"no {key}", changed(lambda content, k=key: content.pop(k) and None))
        for value in (3.5, "x", [1, 2]):
            yield attack(f"{key} is {value!r}", put(value, key), must_fail=key != "epoch")
    for value in (math.nan, math.inf, -math.inf):
        yield attack(f"a weight is {value}", _weights(_with_value(value)))
    for kind in (torch.int8, torch.bool, torch.complex64, torch.int64):
        yield attack(f"weights are {kind}", _weights(lambda tensor, k=kind: tensor.to(k)))
    yield attack("weights are sparse", _weights(lambda tensor: tensor.to_sparse()))
    yield attack("weights are on the meta device", _weights(lambda tensor: tensor.to("meta")))
    yield attack("weights are a view of 2^50 numbers", _weights(lambda tensor: torch.zeros(1).expand(1 << 25, 1 << 25)))
    yield attack("weights of another shape", _weights(lambda tensor: tensor[:5]))
    yield attack("a weight is text", changed(lambda content: content["model"].update({"classifier.5.weight": "x"})))
    yield attack(
        "a name of weights has control characters",
        changed(lambda content: content["model"].update({CONTROL + LINE: torch.zeros(1)})),
    )
    arch = {
        "width_mult": (1e6, 1e308, math.nan, "1.0", None, -1, True),
        "num_classes": (2**31, 10**9, -1, 1.5, "527", None),
        "strides": ("2222", [2, 2], [2, 2, 2, 0], None, [2.5] * 4),
        "head_type": (3, "x", None),
        "se_dims": ("q", 3, CONTROL, "cc"),
        "multihead_attention_heads": (0, 2**40, "4"),
        "input_dim_f": (0, 2**40, "128", 1.5),
        "input_dim_t": (2**62, -1),
        "se_r": (0, -4, 0.5, 2**60),
        "se_agg": ("", None),
        "dilated": ("yes", 3),
        "reduced_tail": ([],),
    }
    for name, values in arch.items():
        for value in values:
            yield attack(f"arch.{name} = {value!r}", put(value, "arch", name))
    mel = {
        "n_fft": (2**30, 10**6, -2, 3, "1024", 1024.5, None),
        "n_mels": (10**6, 0, "128", 2.5),
        "hop_size": (0, 10**12, "320", 0.5),
        "sample_rate": (0, -1, 10**9, "32000", 44100.5, None),
        "win_length": (2**30, 0, "800"),
        "fmin": (math.nan, -1, "0", 1e9),
        "fmax": (math.inf, math.nan, "15000", 0),
        "unknown": (3,),
    }
    for name, values in mel.items():
        for value in values:
            yield attack(f"mel.{name} = {value!r}", put(value, "mel", name))
    for name, labels in {
        "one": ["a"],
        "too many": ["a"] * 600,
        "a text": "x" * 527,
        "numbers": list(range(527)),
        "None": [None] * 527,
        "bytes": [b"x"] * 527,
        "lists": [[]] * 527,
        "a dict": dict.fromkeys(map(str, range(527)), 1),
    }.items():
        yield attack(f"labels: {name}", put(labels, "labels"))
    yield attack("labels have control characters", put([f"{CONTROL}{LINE}{k}" for k in range(527)], "labels"), must_fail=False)
    yield attack("labels are formulas", put([f"=1+{k}" for k in range(527)], "labels"), must_fail=False)
    for value in (math.nan, -1, 0, "10", [], True):
        yield attack(f"clip_seconds = {value!r}", put(value, "clip_seconds"))
    yield attack("single_label is text", put("yes", "single_label"), must_fail=False)
    yield attack("names with ../", lambda content, _: repacked(content, lambda name, data: (f"../../{name}", data)))
    yield attack("wrong checksum", lambda content, _: content.replace(b"PK\x01\x02", b"PK\x01\x03"))


def model_proto(change: Callable[[onnx.ModelProto], object]) -> Callable[[bytes, Path], bytes]:
    def make(content: bytes, _: Path) -> bytes:
        model = onnx.load_model_from_string(content)
        change(model)
        return model.SerializeToString()

    return make


def metadata(change: Callable[[Content], object]) -> Callable[[bytes, Path], bytes]:
    """An ONNX file whose description is changed, or replaced by what `change` returns."""

    def apply(model: onnx.ModelProto) -> None:
        prop = next(prop for prop in model.metadata_props if prop.key == METADATA_KEY)
        value = json.loads(prop.value)
        result = change(value)
        prop.value = result if isinstance(result, str) else json.dumps(value)

    return model_proto(apply)


def _largest(model: onnx.ModelProto) -> TensorProto:
    return max(
        (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT), key=lambda t: len(t.raw_data)
    )


def _initializer(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes, Path], bytes]:
    def apply(model: onnx.ModelProto) -> None:
        tensor = _largest(model)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))

    return model_proto(apply)


def _set_first(array: np.ndarray, value: float) -> np.ndarray:
    array.flat[0] = value
    return array


def _external(path: Callable[[Path], str]) -> Callable[[bytes, Path], bytes]:
    """Weights that lie in another file."""

    def make(content: bytes, secret: Path) -> bytes:
        model = onnx.load_model_from_string(content)
        tensor = _largest(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": path(secret), "offset": "0", "length": "400"}.items():
            tensor.external_data.add(key=key, value=value)
        return model.SerializeToString()

    return make


def _small(
    nodes: list[onnx.NodeProto], *constants: onnx.TensorProto, outputs: tuple[str, ...] = ("scores", "embedding")
) -> Callable[[bytes, Path], bytes]:
    """A graph of other nodes with the description of a good file."""

    def apply(model: onnx.ModelProto) -> None:
        ports = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        model.graph.CopyFrom(helper.make_graph(nodes, "tagger", ports, results, list(constants)))

    return model_proto(apply)


def _identity(*outputs: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", ["waveform"], [name]) for name in outputs]


def _endless() -> Callable[[bytes, Path], bytes]:
    body = helper.make_graph(
        [helper.make_node("Identity", ["again"], ["goes_on"]), helper.make_node("Identity", ["carried"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    constants = (
        helper.make_tensor("count", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    )
    loop = helper.make_node("Loop", ["count", "true", "waveform"], ["scores"], body=body)
    return _small([loop, *_identity("embedding")], *constants)


def onnx_attacks() -> Iterator[Attack]:
    def attack(name: str, make: Callable[[bytes, Path], bytes], must_fail: bool = True) -> Attack:
        return Attack(EXPORTED, name, make, must_fail)

    keys = {
        "format_version": (99, "1", None),
        "model_name": (3, None),
        "input": ("spectrogram", 3),
        "num_classes": (0, -1, 2**31, "527", 1),
        "sample_rate": (0, -1, 10**12, "32000", True, None, 1.5),
        "embedding_size": (1, "96", 2**40, -3),
        "single_label": ("yes", 3),
        "clip_seconds": ("10", -1, [], True),
        "weights": ("float64", 8, [], None),
        "labels": ("x", [], ["a"], [1] * 527, [None] * 527, {}, 3),
    }
    for key, values in keys.items():
        yield attack(f"no {key}", metadata(lambda content, k=key: content.pop(k) and None))
        for value in values:
            yield attack(f"{key} = {str(value)[:20]}", metadata(lambda content, k=key, v=value: content.update({k: v})))
    for text in ("", "{", "[]", "3", "null", "[" * 100_000, '{"a":' * 50_000, '{"sample_rate": NaN}', "\x1b[2J"):
        yield attack(f"description is {text[:12]!r}", metadata(lambda content, t=text: t))
    yield attack("clip_seconds = NaN", metadata(lambda content: content.update(clip_seconds=math.nan)))
    yield attack("no description", model_proto(lambda model: model.ClearField("metadata_props")))
    labels = [f"{CONTROL}{LINE}{k}" for k in range(527)]
    yield attack("labels have control characters", metadata(lambda content: content.update(labels=labels)), must_fail=False)
    for value in (math.nan, math.inf):
        yield attack(f"a weight is {value}", _initializer(lambda array, v=value: _set_first(array, v)))
    yield attack("weights are int8", _initializer(lambda array: array.astype(np.int8)))
    yield attack("weights of another shape", _initializer(lambda array: array.ravel()[:7]))
    for name, path in {
        "absolute": str,
        "relative": lambda secret: f"../../../elsewhere/{secret.name}",
        "passwd": lambda _: "/etc/passwd",
    }.items():
        yield attack(f"weights in another file, {name}", _external(path))
    yield attack("weights of 2^60 numbers", model_proto(lambda model: _largest(model).dims.__setitem__(0, 1 << 60)))
    yield attack("endless loop", _endless())
    size = helper.make_tensor("size", TensorProto.INT64, [1], [1 << 34])
    yield attack(
        "a constant of 64 GB", _small([helper.make_node("ConstantOfShape", ["size"], ["scores"]), *_identity("embedding")], size)
    )
    yield attack(
        "an operation of another domain",
        _small([helper.make_node("Evil", ["waveform"], ["scores"], domain="evil"), *_identity("embedding")]),
    )
    yield attack("no scores", _small(_identity("embedding"), outputs=("embedding",)))
    yield attack("scores are the waveform", _small(_identity("scores", "embedding")))
    yield attack("no nodes", _small([]))
    yield attack(
        "another input",
        model_proto(lambda model: model.graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.INT64)),
    )
    yield attack("empty", lambda content, _: b"")
    yield attack("half", lambda content, _: content[: len(content) // 2])
    yield attack("text", lambda content, _: CONTROL.encode() * 10)
    yield attack("a checkpoint", lambda content, _: saved({"model": {}}))
