"""The network as ONNX operations, batch norms folded, with or without its front end.

The graph is written operation by operation. torch's exporter needs onnxscript and some 10 s for what takes a fraction of a second
here, and its older one is deprecated.
"""

from __future__ import annotations

import copy

import onnx
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from helpers.export.dynamic_blocks import add_dynamic_block
from helpers.export.frame_outputs import add_frame_outputs, add_scores
from helpers.export.front_end import add_front_end
from helpers.export.onnx_writer import WAVEFORM_SHAPE, Graph, make_model, set_metadata, spectrogram_shape
from models.base import TaggingNetwork
from models.blocks import AXES, ConcurrentSE, ConvNormActivation, InvertedResidual, SqueezeExcitation
from models.dynamic_blocks import DynamicBlock
from models.errors import UserError
from models.frame_wise import FrameWiseMobileNet
from models.heads import MultiHeadAttentionPooling

CHANNEL_GROUP = 16


def to_onnx(network: TaggingNetwork, name: str, *, weights: str = "float32", network_only: bool = False) -> onnx.ModelProto:
    """Return waveform (B, samples) -> scores (B, K), embedding (B, C); `network_only`: from spectrogram (B, 1, n_mels, frames).

    A network that scores frames also gives frame_scores (B, T, K) and frame_embeddings (B, T, C). `weights`: one of
    `cache.WEIGHTS`, how they are kept. B, samples, frames and T are free. Raises `ValueError` for a network that takes one length
    only, and for weights not finite.
    """
    if "t" in network.arch.se_dims:
        raise UserError(
            f"{name} has squeeze-and-excitation over time (se_dims={network.arch.se_dims!r}), so it takes clips of one length, "
            f"{network.arch.input_dim_t} frames; only networks that take any length can be exported to ONNX"
        )
    if getattr(network.arch, "seq_len", None) is not None:
        raise UserError(
            f"{name} makes {network.arch.seq_len} steps of clips of any length; only networks with seq_len None are exported"
        )
    check_network(network, name)
    graph = Graph(weights)
    inputs = spectrogram_shape(network.mel) if network_only else WAVEFORM_SHAPE
    add_network(graph, network, "spectrogram" if network_only else add_front_end(graph, network.mel, "waveform"))
    outputs = {"scores": ["batch", network.arch.num_classes], "embedding": ["batch", network.embedding_size]}
    if network.step_seconds is not None:
        sizes = {"frame_scores": network.arch.num_classes, "frame_embeddings": network.embedding_size}
        outputs |= {output: ["batch", "steps", size] for output, size in sizes.items()}
    model = make_model(graph, inputs, outputs)
    set_metadata(model, network, name, network_only, weights)
    return model


def check_network(network: TaggingNetwork, name: str) -> None:
    """Raise `UserError` for a network that no format can hold: without classes, or with weights that are not finite."""
    if not network.arch.num_classes:
        raise UserError(f"{name} has no classes; only networks that give scores can be exported")
    if broken := [key for key, tensor in network.state_dict().items() if not tensor.isfinite().all()]:
        raise UserError(f"{name} has weights that are not finite (first in {broken[0]}); export another checkpoint")


def add_network(graph: Graph, network: TaggingNetwork, spectrogram: str) -> None:
    """`network` in evaluation mode with batch norms folded, ending in the outputs "scores" and "embedding", and those of frames."""
    features = _add_layer(graph, fold(network), spectrogram)
    if isinstance(network, FrameWiseMobileNet):
        add_frame_outputs(graph, network, features)
        return
    pooled = graph.add("GlobalAveragePool", features)
    graph.add("Flatten", pooled, output="embedding")
    head = network.classifier
    if isinstance(head, nn.Sequential) and isinstance(head[0], nn.AdaptiveAvgPool2d):
        logits = _add_layer(graph, head[2:], "embedding")
    else:
        logits = _add_layer(graph, head, features)
    add_scores(graph, network, logits, "scores")


def _add_layer(graph: Graph, layer: nn.Module, x: str) -> str:
    match layer:
        case nn.Sequential():
            for one in layer:
                x = _add_layer(graph, one, x)
            return x
        case InvertedResidual():
            y = _add_layer(graph, layer.block, x)
            return graph.add("Add", x, y) if layer.use_shortcut else y
        case DynamicBlock():
            return add_dynamic_block(graph, layer, x)
        case ConcurrentSE():
            gated = [_add_layer(graph, one, x) for one in layer.conc_se_layers]
            aggregate = {"max": "Max", "min": "Min", "avg": "Mean", "add": "Sum"}[layer.aggregation]
            return graph.add(aggregate, *gated) if len(gated) > 1 else gated[0]
        case SqueezeExcitation():
            return _add_squeeze_excitation(graph, layer, x)
        case MultiHeadAttentionPooling():
            return _add_attention_pooling(graph, layer, x)
        case nn.Conv2d():
            weights = [graph.weight(tensor) for tensor in (layer.weight, layer.bias) if tensor is not None]
            sizes = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "dilations": layer.dilation, "group": layer.groups}
            return graph.add("Conv", x, *weights, pads=[*layer.padding, *layer.padding], **sizes)
        case nn.BatchNorm2d():  # of a head
            statistics = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            return graph.add("BatchNormalization", x, *(graph.weight(tensor) for tensor in statistics), epsilon=layer.eps)
        case nn.Linear():
            return graph.add("Gemm", x, graph.weight(layer.weight), graph.weight(layer.bias), transB=1)
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


def fold(network: TaggingNetwork) -> nn.Sequential:
    """Return `network.features` with batch norms folded into convolutions and, where only channels are squeezed, more channels.

    ONNX Runtime computes channels in groups of 16 with AVX-512 (8 with AVX2), and converts between two layouts where their number
    is no multiple. So all channels but the spectrogram's and the embedding's are padded to a multiple of `CHANNEL_GROUP`, with zero
    weights and biases, which activations and gates leave at zero.
    """
    features = copy.deepcopy(network.features).eval()
    # Means over other axes would see the zeros; dynamic blocks gain nothing from them.
    group = CHANNEL_GROUP if network.arch.family != "dymn" and network.arch.se_dims in ("c", "none") else 1
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


def _add_squeeze_excitation(graph: Graph, layer: SqueezeExcitation, x: str) -> str:
    """The gate's linear layers as 1x1 convolutions, which need no change of shape."""
    swapped = [0, 2, 1, 3]  # (B, C, F, T) and (B, F, C, T)
    if layer.axis == "c":
        gate = graph.add("GlobalAveragePool", x)
    else:
        others = [axis for axis in AXES.values() if axis != AXES[layer.axis]]
        gate = graph.add("Transpose", graph.add("ReduceMean", x, graph.integers(*others)), perm=swapped)
    for linear, activation in ((layer.fc1, "Relu"), (layer.fc2, "Sigmoid")):
        weight = graph.weight(linear.weight[:, :, None, None])
        gate = graph.add(activation, graph.add("Conv", gate, weight, graph.weight(linear.bias), label="Gate"))
    return graph.add("Mul", x, gate if layer.axis == "c" else graph.add("Transpose", gate, perm=swapped))


def _add_attention_pooling(graph: Graph, head: MultiHeadAttentionPooling, x: str) -> str:
    size = head.num_heads * head.num_classes
    frames = graph.add("Transpose", graph.add("ReduceMean", x, graph.integers(2), keepdims=0), perm=[0, 2, 1])  # (B, T, C)
    paths = graph.add("MatMul", frames, graph.add("Transpose", graph.weight(head.subspace_proj.weight)))
    paths = graph.add("Add", paths, graph.weight(head.subspace_proj.bias))
    attention, value = graph.split(paths, [size, size], axis=2)  # (B, T, H * K)
    attention = graph.add("Clip", graph.add("Sigmoid", attention), graph.constant(1e-7), graph.constant(1 - 1e-7))
    attention = graph.add("Div", attention, graph.add("ReduceSum", attention, graph.integers(1)))
    pooled = graph.add("ReduceSum", graph.add("Mul", attention, value), graph.integers(1), keepdims=0)
    pooled = graph.add("Reshape", pooled, graph.integers(0, head.num_heads, head.num_classes))
    return graph.add("ReduceSum", graph.add("Mul", pooled, graph.weight(head.head_weight)), graph.integers(1), keepdims=0)
