"""An exported model in two parts, front end and network, for sound whose windows share frames of the spectrogram.

ONNX Runtime cannot be fed in the middle of a graph, so each part becomes a model of its own. Nothing here imports torch or onnx.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from helpers.export.protobuf import field, fields, repeated
from models.errors import UserError

CUT = "spectrogram"  # the value that the front end ends with
_GRAPH = 7  # numbers of fields in onnx.proto, of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13  # of GraphProto
_TAKEN, _GIVEN, _TENSOR_NAME = 1, 2, 8  # of NodeProto, and of TensorProto
_FLOAT = 1  # of TensorProto.DataType

Ports = Mapping[str, tuple[str | int, ...]]  # names and shapes, with names for free axes


def front_end_part(content: memoryview, n_mels: int) -> bytes:
    """Serialised model -> the model waveform (B, samples) -> spectrogram (B, 1, n_mels, frames)."""
    return _part(content, {"waveform": ("batch", "samples")}, {CUT: ("batch", 1, n_mels, "frames")})


def network_part(content: memoryview, n_mels: int, num_classes: int, embedding_size: int, frames: bool = False) -> bytes:
    """Serialised model -> the model spectrogram (B, 1, n_mels, frames) -> scores (B, K), embedding (B, C), those of `frames`."""
    outputs: Ports = {"scores": ("batch", num_classes), "embedding": ("batch", embedding_size)}
    if frames:
        steps = ("batch", "steps")
        outputs = {**outputs, "frame_scores": (*steps, num_classes), "frame_embeddings": (*steps, embedding_size)}
    return _part(content, {CUT: ("batch", 1, n_mels, "frames")}, outputs)


def _part(content: memoryview, inputs: Ports, outputs: Ports) -> bytes:
    """Return the model that computes `outputs` from `inputs`, all float32, with what of the graph that needs."""
    [graph] = repeated(content, _GRAPH)
    members = fields(graph)
    needed, nodes = set(outputs), []
    for node in reversed([value for number, value in members if number == _NODE]):  # each comes after what it takes
        if not (needed - set(inputs)).isdisjoint(_names(node, _GIVEN)):
            needed.update(_names(node, _TAKEN))
            nodes.insert(0, node)
    if not needed.issuperset(inputs):
        raise UserError(f"the graph does not compute {', '.join(outputs)} from {', '.join(inputs)}; export the model again")
    tensors = [tensor for tensor in repeated(graph, _INITIALIZER) if not needed.isdisjoint(_names(tensor, _TENSOR_NAME))]
    others = [pair for pair in members if pair[0] not in (_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO)]
    of_graph = [
        *((_NODE, node) for node in nodes),
        *others,
        *((_INITIALIZER, tensor) for tensor in tensors),
        *((_INPUT, _port(name, shape)) for name, shape in inputs.items()),
        *((_OUTPUT, _port(name, shape)) for name, shape in outputs.items()),
    ]
    graph = b"".join(field(*pair) for pair in of_graph)
    return b"".join(field(number, graph if number == _GRAPH else value) for number, value in fields(content))


def _names(message: memoryview, number: int) -> Iterator[str]:
    return (bytes(value).decode() for value in repeated(message, number))


def _port(name: str, shape: Iterable[str | int]) -> bytes:
    """Serialise a ValueInfoProto of float32."""
    axes = [field(2, axis.encode()) if isinstance(axis, str) else field(1, axis) for axis in shape]
    tensor = field(1, _FLOAT) + field(2, b"".join(field(1, axis) for axis in axes))
    return field(1, name.encode()) + field(2, field(1, tensor))
