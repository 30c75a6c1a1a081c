"""What a frame-wise network has behind its backbone as ONNX operations, for any batch and length: sequence model and heads.

A minGRU is a `Scan` over time, its two directions in one; rotary positions are computed from the number of steps.
"""

from __future__ import annotations

import math

import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from helpers.export.onnx_writer import Graph
from models.base import TaggingNetwork
from models.frame_wise import SMALLEST, FrameWiseMobileNet
from models.sequence_models import (
    BidirectionalGRU,
    BidirectionalMinGRU,
    FeedForward,
    GatedAttention,
    HybridLayer,
    HybridMixer,
    Layers,
    RMSNorm,
    TransformerLayer,
)


def add_frame_outputs(graph: Graph, network: FrameWiseMobileNet, features: str) -> None:
    """(B, C, F, T) -> the outputs "scores" and "embedding" and, where the strong head is of use, those of frames."""
    scores_frames = network.step_seconds is not None
    sequence = graph.add("Transpose", graph.add("ReduceMean", features, graph.integers(2), keepdims=0), perm=[0, 2, 1])
    frames = _add_layer(graph, network.seq_model, sequence)
    if scores_frames:
        graph.add("Identity", frames, output="frame_embeddings")
    embedding = graph.add("ReduceMean", frames, graph.integers(1), keepdims=0, output="embedding")
    logits = _add_linear(graph, network.strong_head, frames)
    if scores_frames:
        add_scores(graph, network, logits, "frame_scores")
    if network.arch.head_type == "attention":
        clip = _add_attention(graph, network.weak_head, frames, logits)
    elif network.arch.trained_heads == "strong":
        clip = graph.add("ReduceMax", logits, graph.integers(1), keepdims=0)
    else:
        clip = _add_linear(graph, network.weak_head, embedding)
    add_scores(graph, network, clip, "scores")


def add_scores(graph: Graph, network: TaggingNetwork, logits: str, output: str) -> None:
    """Logits (..., K) -> the output of that name, scores (..., K)."""
    if network.single_label:
        graph.add("Softmax", logits, axis=-1, output=output)
    else:
        graph.add("Sigmoid", logits, output=output)


def _add_attention(graph: Graph, head: nn.Linear, frames: str, logits: str) -> str:
    """Logits of the clip of the attention head, as `FrameWiseMobileNet` has them."""
    share = graph.add("Softmax", _add_linear(graph, head, frames), axis=-1)
    share = graph.add("Clip", share, graph.constant(SMALLEST), graph.constant(1.0))
    weighted = graph.add("Mul", graph.add("Sigmoid", logits), share)
    sums = [graph.add("ReduceSum", values, graph.integers(1), keepdims=0) for values in (weighted, share)]
    score = graph.add("Clip", graph.add("Div", *sums), graph.constant(SMALLEST), graph.constant(1 - SMALLEST))
    return graph.add("Log", graph.add("Div", score, graph.add("Sub", graph.constant(1.0), score)))


def _add_layer(graph: Graph, layer: nn.Module, x: str) -> str:
    """(B, T, size) -> (B, T, size of the layer's outputs)."""
    match layer:
        case nn.Sequential():
            for one in layer:
                x = _add_layer(graph, one, x)
            return x
        case nn.Identity() | nn.Dropout():
            return x
        case nn.Linear():
            return _add_linear(graph, layer, x)
        case nn.GELU():
            erf = graph.add("Erf", graph.add("Mul", x, graph.constant(math.sqrt(0.5))))
            return graph.add("Mul", graph.add("Mul", x, graph.add("Add", erf, graph.constant(1.0))), graph.constant(0.5))
        case RMSNorm():
            norm = graph.add("Max", graph.add("ReduceL2", x, graph.integers(-1)), graph.constant(1e-12))
            return graph.add("Mul", graph.add("Div", x, norm), graph.constant(layer.gamma * len(layer.gamma) ** 0.5))
        case Layers():
            for one in layer.layers:
                x = _add_layer(graph, one, x)
            return _add_layer(graph, layer.norm, x)
        case TransformerLayer():
            for part in layer:
                x = graph.add("Add", x, _add_layer(graph, part, x))
            return x
        case HybridLayer():
            mixer_norm, mixer, linear_norm, linear = layer
            for norm, part in ((mixer_norm, mixer), (linear_norm, linear)):
                x = graph.add("Add", x, _add_layer(graph, part, _add_layer(graph, norm, x)))
            return x
        case FeedForward():
            return _add_layer(graph, layer.net, x)
        case GatedAttention():
            return _add_gated_attention(graph, layer, x)
        case HybridMixer():
            return _add_hybrid(graph, layer, x)
        case BidirectionalMinGRU():
            return _add_min_gru(graph, layer, x)
        case BidirectionalGRU():
            return _add_gru(graph, layer, x)
    raise TypeError(f"no ONNX form is known of {layer}")


def _add_linear(graph: Graph, layer: nn.Linear, x: str) -> str:
    """(..., in) -> (..., out)."""
    y = _add_product(graph, layer.weight, x)
    return y if layer.bias is None else graph.add("Add", y, graph.weight(layer.bias))


def _add_product(graph: Graph, weight: Tensor, x: str) -> str:
    return graph.add("MatMul", x, graph.add("Transpose", graph.weight(weight), perm=[1, 0]))


def _add_heads(graph: Graph, weight: Tensor, heads: int, x: str, perm: list[int]) -> str:
    """(B, T, size) times a weight (size, size) -> (B, T, heads, head size), permuted."""
    y = graph.add("Reshape", _add_product(graph, weight, x), graph.integers(0, 0, heads, len(weight) // heads))
    return graph.add("Transpose", y, perm=perm)


def _add_attention_branch(graph: Graph, qkv: Tensor, heads: int, x: str, rates: Tensor | None = None) -> str:
    """(B, T, size) -> the heads' results (B, heads, T, head size); `rates` are those of rotary positions."""
    query, key, value = qkv.detach().chunk(3)
    head_size = len(query) // heads
    if rates is not None:  # channels that turn together go into two halves; products of queries and keys stay what they are
        halves = torch.arange(len(query)).view(heads, -1, 2).mT.flatten()
        query, key = query[halves], key[halves]
    query, key, value = (_add_heads(graph, one, heads, x, [0, 2, 1, 3]) for one in (query * head_size**-0.5, key, value))
    if rates is not None:
        query, key = _add_positions(graph, rates, x, head_size, query, key)
    scores = graph.add("Softmax", graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2])), axis=-1)
    return graph.add("MatMul", scores, value)


def _add_positions(graph: Graph, rates: Tensor, x: str, head_size: int, *heads: str) -> list[str]:
    """Turn (B, heads, T, head size), whose pairs of channels are in two halves, by the angles of T positions."""
    steps = graph.add("Squeeze", graph.add("Shape", x, start=1, end=2))
    zero, one = (graph.constant(number, "int64") for number in (0, 1))
    positions = graph.add("Cast", graph.add("Range", zero, steps, one), to=TensorProto.FLOAT)
    angles = graph.add("Mul", graph.add("Unsqueeze", positions, graph.integers(1)), graph.constant(rates))  # (T, pairs)
    cos, sin = graph.add("Cos", angles), graph.add("Sin", angles)
    turned = []
    for head in heads:
        a, b = graph.split(head, [head_size // 2] * 2, axis=3)
        first = graph.add("Sub", graph.add("Mul", a, cos), graph.add("Mul", b, sin))
        second = graph.add("Add", graph.add("Mul", b, cos), graph.add("Mul", a, sin))
        turned.append(graph.add("Concat", first, second, axis=3))
    return turned


def _add_joined(graph: Graph, x: str, size: int) -> str:
    """(B, heads, T, head size) -> (B, T, size)."""
    return graph.add("Reshape", graph.add("Transpose", x, perm=[0, 2, 1, 3]), graph.integers(0, 0, size))


def _add_gated_attention(graph: Graph, layer: GatedAttention, x: str) -> str:
    x = _add_layer(graph, layer.norm, x)
    y = _add_attention_branch(graph, layer.to_qkv.weight, layer.heads, x, layer.pos_encoding.freqs)
    gates = graph.add("Transpose", graph.add("Sigmoid", _add_linear(graph, layer.to_gates, x)), perm=[0, 2, 1])
    y = graph.add("Mul", y, graph.add("Unsqueeze", gates, graph.integers(3)))
    return _add_layer(graph, layer.to_out, _add_joined(graph, y, layer.to_out[0].in_features))


def _add_hybrid(graph: Graph, layer: HybridMixer, x: str) -> str:
    size = layer.to_out.in_features
    attended = _add_attention_branch(graph, layer.to_qkv.weight, layer.heads, x)
    recurrent = graph.add("Reshape", _add_layer(graph, layer.rnn, x), graph.integers(0, 0, layer.heads, size // layer.heads))
    recurrent = graph.add("Transpose", recurrent, perm=[0, 2, 1, 3])
    both = graph.add("Add", _add_layer(graph, layer.rnn_out_norm, recurrent), _add_layer(graph, layer.attn_out_norm, attended))
    return _add_linear(graph, layer.to_out, _add_joined(graph, graph.add("Mul", both, graph.constant(0.5)), size))


def _add_min_gru(graph: Graph, layer: BidirectionalMinGRU, x: str) -> str:
    """h = decay * h + value, in both directions at once."""
    size = layer.to_out.out_features
    inputs = []
    for direction in (layer.forward_minGRU, layer.backward_minGRU):
        hidden, gate = graph.split(_add_linear(graph, direction.to_hidden_and_gate, x), [size, size], axis=2)
        candidate = graph.add("Min", graph.add("Sigmoid", hidden), graph.constant(0.5))
        candidate = graph.add("Add", candidate, graph.add("Relu", hidden))  # a + 0.5 from 0 on, else sigmoid(a)
        inputs.append(graph.add("Sigmoid", graph.add("Neg", gate)))
        inputs.append(graph.add("Mul", graph.add("Sigmoid", gate), candidate))
    start = graph.add("Concat", graph.add("Shape", x, start=0, end=1), graph.integers(size), axis=0)
    start = graph.add("ConstantOfShape", start)  # (B, size) of zeros
    body = Graph(prefix="recurrence_")
    states, given = ["state_0", "state_1"], ["decay_0", "value_0", "decay_1", "value_1"]
    for k in (0, 1):
        state = body.add("Add", body.add("Mul", f"decay_{k}", f"state_{k}"), f"value_{k}", output=f"next_{k}")
        body.add("Identity", state, output=f"step_{k}")
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size]) for name in names]
        for names in ([*states, *given], ["next_0", "next_1", "step_0", "step_1"])
    ]
    directions = {"scan_input_directions": [0, 0, 1, 1], "scan_output_directions": [0, 1]}
    axes = {"scan_input_axes": [1] * 4, "scan_output_axes": [1] * 2}
    steps = graph.add_several(
        "Scan",
        [start, start, *inputs],
        4,
        body=helper.make_graph(body.nodes, "recurrence", *ports),
        num_scan_inputs=4,
        **directions,
        **axes,
    )
    return _add_linear(graph, layer.to_out, graph.add("Concat", *steps[2:], axis=2))


def _add_gru(graph: Graph, layer: BidirectionalGRU, x: str) -> str:
    """ONNX has time first, gates in the order z, r, h, and one operation a layer."""
    x = graph.add("Transpose", x, perm=[1, 0, 2])
    for number in range(layer.num_layers):
        operands = []
        for kind in ("weight_ih", "weight_hh", "bias"):
            parts = []
            for end in (f"l{number}", f"l{number}_reverse"):
                names = [f"{kind}_{end}"] if kind != "bias" else [f"bias_ih_{end}", f"bias_hh_{end}"]
                one = torch.cat([_gates_in_order(getattr(layer, name)) for name in names])
                parts.append(graph.add("Unsqueeze", graph.weight(one), graph.integers(0)))
            operands.append(graph.add("Concat", *parts, axis=0))
        y = graph.add("GRU", x, *operands, hidden_size=layer.hidden_size, direction="bidirectional", linear_before_reset=1)
        x = graph.add("Transpose", y, perm=[0, 2, 1, 3])  # (T, B, directions, size)
        x = graph.add("Reshape", x, graph.integers(0, 0, 2 * layer.hidden_size))
    return graph.add("Transpose", x, perm=[1, 0, 2])


def _gates_in_order(parameter: Tensor) -> Tensor:
    reset, update, new = parameter.detach().chunk(3)
    return torch.cat([update, reset, new])
