"""From a network to an ONNX graph: front end, folded batch norms, heads, metadata, 8-bit integers.

The graph is written operation by operation and not traced: tracing takes minutes where this takes less than a second, fixes the
batch size here and there, and leaves no choice of the operations that ONNX Runtime is fastest with.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from datasets import audio
from datasets.labels import default_labels
from helpers.export.cache import FORMAT_VERSION, METADATA_KEY
from models.blocks import AXES, ConcurrentSE, ConvNormActivation, InvertedResidual, SqueezeExcitation
from models.config import MelConfig
from models.errors import UserError
from models.files import write_atomically
from models.heads import MultiHeadAttentionPooling
from models.network import MobileNetV3
from models.preprocess import LOG_OFFSET, PRE_EMPHASIS, mel_filterbank

OPSET, IR_VERSION = 18, 10  # what ONNX Runtime 1.18 (2024) and later read
CHANNEL_GROUP = 16
TO_THE_END = 2**62  # as the end of a slice
WAVEFORM = {"waveform": ["batch", "samples"]}
CALIBRATION_SECONDS = 10.0  # at most of one recording


class Graph:
    """Nodes and constants of a graph under construction; every method that adds a node returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, output: str | None = None, label: str | None = None, **attributes: Any) -> str:
        name = f"{label or op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        name = f"Split_{len(self.nodes)}"
        outputs = [f"{name}_{i}" for i in range(len(sizes))]
        self.nodes.append(helper.make_node("Split", [x, self.integers(*sizes)], outputs, name=name, axis=axis))
        return outputs

    def constant(self, value: Tensor | np.ndarray | float) -> str:
        """Add a float32 constant."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return self._constant(np.asarray(array, np.float32, order="C"))

    def integers(self, *values: int) -> str:
        """Add a list of int64, as shapes, axes and indices are given."""
        return self._constant(np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Add a single int64 without axes."""
        return self._constant(np.array(value, np.int64))

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def to_onnx(network: MobileNetV3, name: str, *, network_only: bool = False) -> onnx.ModelProto:
    """Return waveform (B, samples) -> scores (B, K), embedding (B, C); `network_only`: from spectrogram (B, 1, n_mels, frames).

    B, samples and frames are free. Raises `ValueError` for a network that takes one length only.
    """
    if "t" in network.arch.se_dims:
        raise UserError(
            f"{name} has squeeze-and-excitation over time (se_dims={network.arch.se_dims!r}), so it takes clips of one length, "
            f"{network.arch.input_dim_t} frames; only networks that take any length can be exported"
        )
    graph = Graph()
    if network_only:
        add_network(graph, network, "spectrogram")
    else:
        add_network(graph, network, add_front_end(graph, network.mel, "waveform"))
    model = _model(graph, network, network_only)
    set_metadata(model, _metadata(network, name, network_only))
    return model


def _model(graph: Graph, network: MobileNetV3, network_only: bool) -> onnx.ModelProto:
    outputs = {"scores": ["batch", network.arch.num_classes], "embedding": ["batch", network.embedding_size]}
    return _checked(graph, _spectrogram(network.mel) if network_only else WAVEFORM, outputs)


def _spectrogram(mel: MelConfig) -> dict[str, list[str | int]]:
    return {"spectrogram": ["batch", 1, mel.n_mels, "frames"]}


def _checked(graph: Graph, inputs: dict[str, list[str | int]], outputs: dict[str, list[str | int]]) -> onnx.ModelProto:
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


def _metadata(network: MobileNetV3, name: str, network_only: bool) -> dict[str, Any]:
    """What travels with the graph: all that is needed to feed it and to read its scores."""
    mel, classes = network.mel, network.arch.num_classes
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
        "int8": False,
    }


def set_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Store `metadata` as one JSON text."""
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})


def front_end_to_onnx(mel: MelConfig) -> onnx.ModelProto:
    """Return waveform (B, samples) -> spectrogram (B, 1, n_mels, frames), without metadata."""
    graph = Graph()
    graph.add("Identity", add_front_end(graph, mel, "waveform"), output="spectrogram")
    return _checked(graph, WAVEFORM, _spectrogram(mel))


def add_front_end(graph: Graph, mel: MelConfig, waveform: str) -> str:
    """`AugmentMelSTFT` in evaluation mode: waveform (B, samples) -> log-mel spectrogram (B, 1, n_mels, frames)."""
    samples = graph.add("Shape", waveform, start=1)
    missing = graph.add("Max", graph.add("Sub", graph.integers(mel.min_samples), samples), graph.integers(0))
    x = graph.add("Pad", waveform, graph.add("Concat", graph.integers(0, 0, 0), missing, axis=0))
    late = graph.add("Slice", x, graph.integers(1), graph.integers(TO_THE_END), graph.integers(1))
    early = graph.add("Slice", x, graph.integers(0), graph.integers(-1), graph.integers(1))
    x = graph.add("Sub", late, graph.add("Mul", early, graph.constant(PRE_EMPHASIS)))

    # A frame is n_fft samples long, of which the window leaves the win_length in the middle: the others are not even gathered.
    before = (mel.n_fft - mel.win_length) // 2
    after = mel.n_fft - mel.win_length - before
    length = graph.add("Shape", x, start=1)
    padding = graph.integers(0, mel.n_fft // 2 - before, 0, mel.n_fft // 2 - after)
    x = graph.add("Pad", x, padding, mode="reflect")
    count = graph.add("Add", graph.add("Div", length, graph.integers(mel.hop_size)), graph.integers(1))
    bank = mel_filterbank(mel.n_mels, mel.n_fft, mel.sample_rate, mel.fmin, mel.fmax).T  # (bins, n_mels)
    bins = bank.any(1).nonzero()[:, 0]  # those without weight in any band are not computed
    power = _folded_power if before == after and mel.n_fft % 4 == 0 else _plain_power
    spectra = power(graph, mel, x, count, bins)
    energies = [graph.add("MatMul", spectrum, graph.constant(bank[part])) for spectrum, part in spectra]
    energy = energies[0] if len(energies) == 1 else graph.add("Add", *energies)  # (B, frames, n_mels)
    log_mel = graph.add("Log", graph.add("Add", energy, graph.constant(LOG_OFFSET)))
    log_mel = graph.add("Div", graph.add("Add", log_mel, graph.constant(4.5)), graph.constant(5.0))
    return graph.add("Unsqueeze", graph.add("Transpose", log_mel, perm=[0, 2, 1]), graph.integers(1))


Spectra = Iterable[tuple[str, Tensor]]  # |DFT|^2 (B, frames, len(bins)) and the bins it holds


def _add_frames(graph: Graph, mel: MelConfig, x: str, count: str, backwards: bool = False) -> str:
    """Cut `count` frames out of (B, samples): (B, frames, win_length), each one `backwards` if asked for.

    Frames are put together from blocks, of which both a hop and a window are a whole number: 160 samples for 800 and 320. Where
    blocks would be tiny, single samples are gathered, which is slower.
    """
    size = math.gcd(mel.hop_size, mel.win_length)
    hops = graph.add("Sub", count, graph.integers(1))
    if size < 16:
        starts = graph.add("Range", graph.integer(0), graph.add("Squeeze", count), graph.integer(1))
        starts = graph.add("Unsqueeze", graph.add("Mul", starts, graph.integers(mel.hop_size)), graph.integers(1))
        offsets = list(range(mel.win_length))
        index = graph.add("Add", starts, graph.integers(*(reversed(offsets) if backwards else offsets)))
        return graph.add("Gather", x, index, axis=1)
    end = graph.add("Add", graph.add("Mul", hops, graph.integers(mel.hop_size)), graph.integers(mel.win_length))
    x = graph.add("Slice", x, graph.integers(0), end, graph.integers(1))
    blocks = graph.add("Reshape", x, graph.integers(0, -1, size))
    positions = list(range(mel.win_length // size))
    if backwards:
        blocks = graph.add("Slice", blocks, *(graph.integers(value) for value in (-1, -TO_THE_END, 2, -1)))
        positions.reverse()
    step = graph.integers(mel.hop_size // size)
    reach = graph.add("Mul", hops, step)
    parts = [
        graph.add("Slice", blocks, graph.integers(j), graph.add("Add", reach, graph.integers(j + 1)), graph.integers(1), step)
        for j in positions
    ]
    return graph.add("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]


def _plain_power(graph: Graph, mel: MelConfig, x: str, count: str, bins: Tensor) -> Spectra:
    """The discrete Fourier transform as a product of frames and a matrix, for any window."""
    frames = _add_frames(graph, mel, x, count)
    angle = 2 * torch.pi / mel.n_fft * (torch.outer(torch.arange(mel.win_length), bins) % mel.n_fft).double()
    window = _window(mel)[:, None]
    yield _squared(graph, frames, window * angle.cos(), frames, window * angle.sin()), bins


def _folded_power(graph: Graph, mel: MelConfig, x: str, count: str, bins: Tensor) -> Spectra:
    """The same with a third of the multiplications, for frames of a length that four divides, with the window in their middle.

    Only the power counts, so phases may be taken from the middle of the frame, where n = (n_fft - 1) / 2. About it, cosines are
    even and sines odd; and from n to n + n_fft / 2, those of even bins keep their sign while those of odd bins change it. So the
    samples n, n_fft / 2 - 1 - n, n_fft / 2 + n and n_fft - 1 - n meet the same weights up to the sign, and are added or
    subtracted first: what remains are four matrices over a quarter of the frame, for half of the bins each.
    """
    quarter, middle = mel.n_fft // 4, mel.win_length // 2
    frames, mirrored = _add_frames(graph, mel, x, count), _add_frames(graph, mel, x, count, backwards=True)
    window = _window(mel)

    def sums(begin: int, end: int) -> tuple[str, str]:
        """What cosines and what sines weigh, from samples `begin` to `end` of the window and their mirror images."""
        part = [graph.integers(begin), graph.integers(end), graph.integers(2)]
        one, other = graph.add("Slice", frames, *part), graph.add("Slice", mirrored, *part)
        weight = graph.constant(window[begin:end])
        return graph.add("Mul", graph.add("Add", one, other), weight), graph.add("Mul", graph.add("Sub", one, other), weight)

    inner = torch.arange(min(quarter, middle))  # from the middle of the frame on
    cosine, sine = sums(middle, middle + len(inner))
    by_parity = {0: (cosine, sine), 1: (cosine, sine)}
    if middle > quarter:  # the window's outer samples, half a frame away from inner ones
        missing = graph.integers(0, 0, 2 * quarter - middle, 0, 0, 0)
        outer_cosine, outer_sine = (graph.add("Pad", one, missing) for one in sums(0, middle - quarter))
        by_parity[0] = graph.add("Add", cosine, outer_cosine), graph.add("Add", sine, outer_sine)
        by_parity[1] = graph.add("Sub", cosine, outer_cosine), graph.add("Sub", sine, outer_sine)
    for parity, (cosine_sum, sine_sum) in by_parity.items():
        part = bins[bins % 2 == parity]
        angle = 2 * torch.pi / mel.n_fft * torch.outer(inner + 0.5, part.double())
        yield _squared(graph, cosine_sum, angle.cos(), sine_sum, angle.sin()), part


def _window(mel: MelConfig) -> Tensor:
    return torch.hann_window(mel.win_length, periodic=False, dtype=torch.float64)


def _squared(graph: Graph, x: str, cosines: Tensor, y: str, sines: Tensor) -> str:
    """|x C + i y S|^2, (B, frames, bins)."""
    real = graph.add("MatMul", x, graph.constant(cosines))
    imaginary = graph.add("MatMul", y, graph.constant(sines))
    return graph.add("Add", graph.add("Mul", real, real), graph.add("Mul", imaginary, imaginary))


def add_network(graph: Graph, network: MobileNetV3, spectrogram: str) -> None:
    """`network` in evaluation mode with batch norms folded, ending in the outputs "scores" and "embedding"."""
    features = _add_layer(graph, fold(network), spectrogram)
    pooled = graph.add("GlobalAveragePool", features)
    graph.add("Flatten", pooled, output="embedding")
    head = network.classifier
    if isinstance(head, nn.Sequential) and isinstance(head[0], nn.AdaptiveAvgPool2d):
        logits = _add_layer(graph, head[2:], "embedding")
    else:
        logits = _add_layer(graph, head, features)
    if network.single_label:
        graph.add("Softmax", logits, axis=-1, output="scores")
    else:
        graph.add("Sigmoid", logits, output="scores")


def _add_layer(graph: Graph, layer: nn.Module, x: str) -> str:
    match layer:
        case nn.Sequential():
            for one in layer:
                x = _add_layer(graph, one, x)
            return x
        case InvertedResidual():
            y = _add_layer(graph, layer.block, x)
            return graph.add("Add", x, y) if layer.use_shortcut else y
        case ConcurrentSE():
            return _add_squeeze_excitations(graph, layer, x)
        case SqueezeExcitation():
            return _add_squeeze_excitation(graph, layer, x)
        case MultiHeadAttentionPooling():
            return _add_attention_pooling(graph, layer, x)
        case nn.Conv2d():
            weights = [graph.constant(tensor) for tensor in (layer.weight, layer.bias) if tensor is not None]
            sizes = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "dilations": layer.dilation, "group": layer.groups}
            return graph.add("Conv", x, *weights, pads=[*layer.padding, *layer.padding], **sizes)
        case nn.BatchNorm2d():  # of a head
            statistics = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            return graph.add("BatchNormalization", x, *(graph.constant(tensor) for tensor in statistics), epsilon=layer.eps)
        case nn.Linear():
            return graph.add("Gemm", x, graph.constant(layer.weight), graph.constant(layer.bias), transB=1)
        case nn.ReLU():
            return graph.add("Relu", x)
        case nn.Hardswish():
            return graph.add("HardSwish", x)
        case nn.AdaptiveAvgPool2d(output_size=1):
            return graph.add("GlobalAveragePool", x)
        case nn.Flatten(start_dim=1):
            return graph.add("Flatten", x)
        case nn.Dropout() | nn.Identity():
            return x
    raise TypeError(f"no ONNX form is known of {layer}")


def fold(network: MobileNetV3) -> nn.Sequential:
    """Return `network.features` with batch norms folded into convolutions and, where only channels are squeezed, more channels.

    ONNX Runtime computes channels in groups of 16 with AVX-512 (8 with AVX2), and where their number is no multiple goes back and
    forth between two layouts. So zeros fill all channels but the spectrogram's and the embedding's up to `CHANNEL_GROUP`: zero
    weights and biases, which activations and gates leave at zero.
    """
    features = copy.deepcopy(network.features).eval()
    group = CHANNEL_GROUP if network.arch.se_dims in ("c", "none") else 1  # means over other axes would see the zeros
    for layer in features.modules():
        if isinstance(layer, ConvNormActivation):
            conv = layer[0] = fuse_conv_bn_eval(layer[0], layer[1])
            layer[1] = nn.Identity()
            outputs = 0 if layer is features[-1] else -conv.out_channels % group
            inputs = 0 if conv.weight.shape[1] == 1 else -conv.in_channels % group  # of a depthwise convolution each sees one
            conv.weight = _with_zeros(conv.weight, inputs, outputs)
            conv.bias = _with_zeros(conv.bias, outputs)
            conv.groups += outputs if conv.groups > 1 else 0
        elif isinstance(layer, SqueezeExcitation):
            more = -layer.fc1.in_features % group
            layer.fc1.weight = _with_zeros(layer.fc1.weight, more, 0)
            layer.fc2.weight = _with_zeros(layer.fc2.weight, 0, more)
            layer.fc2.bias = _with_zeros(layer.fc2.bias, more)
    return features


def _with_zeros(parameter: nn.Parameter, *more: int) -> nn.Parameter:
    """Append zeros: (n,) along its axis, else along the second and the first axis."""
    padding = [0, 0] * (parameter.ndim - 2) + [end for count in more for end in (0, count)]
    return nn.Parameter(functional.pad(parameter, padding), requires_grad=False)


def _add_squeeze_excitations(graph: Graph, layer: ConcurrentSE, x: str) -> str:
    gated = [_add_layer(graph, one, x) for one in layer.conc_se_layers]
    if len(gated) == 1:
        return gated[0]
    return graph.add({"max": "Max", "min": "Min", "avg": "Mean", "add": "Sum"}[layer.aggregation], *gated)


def _add_squeeze_excitation(graph: Graph, layer: SqueezeExcitation, x: str) -> str:
    """The gate's linear layers as 1x1 convolutions, which need no change of shape."""
    swapped = [0, 2, 1, 3]  # (B, C, F, T) and (B, F, C, T)
    if layer.axis == "c":
        gate = graph.add("GlobalAveragePool", x)
    else:
        others = [axis for axis in AXES.values() if axis != AXES[layer.axis]]
        gate = graph.add("Transpose", graph.add("ReduceMean", x, graph.integers(*others)), perm=swapped)
    for linear, activation in ((layer.fc1, "Relu"), (layer.fc2, "Sigmoid")):
        weight = graph.constant(linear.weight[:, :, None, None])
        gate = graph.add(activation, graph.add("Conv", gate, weight, graph.constant(linear.bias), label="Gate"))
    return graph.add("Mul", x, gate if layer.axis == "c" else graph.add("Transpose", gate, perm=swapped))


def _add_attention_pooling(graph: Graph, head: MultiHeadAttentionPooling, x: str) -> str:
    size = head.num_heads * head.num_classes
    frames = graph.add("Transpose", graph.add("ReduceMean", x, graph.integers(2), keepdims=0), perm=[0, 2, 1])  # (B, T, C)
    paths = graph.add("MatMul", frames, graph.constant(head.subspace_proj.weight.T))
    paths = graph.add("Add", paths, graph.constant(head.subspace_proj.bias))
    attention, value = graph.split(paths, [size, size], axis=2)  # (B, T, H * K)
    attention = graph.add("Clip", graph.add("Sigmoid", attention), graph.constant(1e-7), graph.constant(1 - 1e-7))
    attention = graph.add("Div", attention, graph.add("ReduceSum", attention, graph.integers(1)))
    pooled = graph.add("ReduceSum", graph.add("Mul", attention, value), graph.integers(1), keepdims=0)
    pooled = graph.add("Reshape", pooled, graph.integers(0, head.num_heads, head.num_classes))
    return graph.add("ReduceSum", graph.add("Mul", pooled, graph.constant(head.head_weight)), graph.integers(1), keepdims=0)


def to_int8(network: MobileNetV3, name: str, clips: Iterable[np.ndarray], *, network_only: bool = False) -> onnx.ModelProto:
    """As `to_onnx`, with convolutions in 8-bit integers whose ranges the `clips`, (samples,) float32, show (static, QDQ).

    The front end stays float: its power spectra span ten decades. So do the gates of squeeze-and-excitation and the head.
    """
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    float_network = to_onnx(network, name, network_only=True)
    helper.set_model_props(float_network, {"onnx.quant.pre_process": "onnxruntime.quant"})  # norms are folded: no advice needed
    front_end = front_end_to_onnx(network.mel)
    session = InferenceSession(front_end.SerializeToString(), providers=["CPUExecutionProvider"])

    class Spectrograms(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(clips)

        def get_next(self) -> dict[str, np.ndarray] | None:
            clip = next(self._left, None)
            return None if clip is None else {"spectrogram": session.run(None, {"waveform": clip[None]})[0]}

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(float_network, before)
        quantize_static(
            before, after, Spectrograms(), quant_format=QuantFormat.QDQ, per_channel=True,
            nodes_to_quantize=[node.name for node in float_network.graph.node if node.name.startswith("Conv_")],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=True,  # 7-bit weights: without VNNI instructions, sums of two 8-bit products overflow 16 bits
        )  # fmt: skip
        model = onnx.load(after)
    if not network_only:
        front_end = compose.add_prefix(front_end, "front_end/", rename_inputs=False, rename_outputs=False)
        opset, model.ir_version = model.opset_import[0].version, IR_VERSION
        front_end.opset_import[0].version = opset
        model = compose.merge_models(front_end, model, io_map=[("spectrogram", "spectrogram")], producer_name="export.py")
    set_metadata(model, _metadata(network, name, network_only) | {"int8": True})
    onnx.checker.check_model(model)
    return model


def calibration_clips(paths: Iterable[Path], sample_rate: int) -> Iterator[np.ndarray]:
    """Yield the first seconds of recordings, and of those in folders; raises as `audio.load`, `ValueError` if there are none."""
    paths = list(paths)
    files = [file for path in paths for file in (audio.find(path) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"no recordings to calibrate with in {', '.join(map(str, paths))}")
    for file in files:
        yield audio.load(file, sample_rate, seconds=CALIBRATION_SECONDS)


def write(path: Path, model: onnx.ModelProto) -> None:
    """Write the file: complete under its name or, after any failure, not at all."""
    content = model.SerializeToString()
    write_atomically(path, lambda file: file.write(content))
