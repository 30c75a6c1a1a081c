"""The dynamic block of DyMN as ONNX operations, for any batch and length, its norms folded into all kernels.

ONNX has no convolution with a kernel for each example where the batch is free. So each block is the body of a `Scan`, which runs
for one example after the other: its kernels are then weights like others, but computed.
"""

from __future__ import annotations

from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from helpers.export.onnx_writer import Graph
from models.dynamic_blocks import ContextGenerator, DynamicBlock, DynamicConv, DynamicReLU, StaticConv


def add_dynamic_block(graph: Graph, block: DynamicBlock, x: str) -> str:
    """(B, in, F, T) -> (B, out, F', T')."""
    body = Graph(graph.weights, prefix="block_")
    _add_one_example(body, block, "block_input", "block_output")
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)] for name in ("block_input", "block_output")]
    code = helper.make_graph(body.nodes, "one_example", *ports, body.constants)
    axis = graph.integers(1)
    y = graph.add("Scan", graph.add("Unsqueeze", x, axis), body=code, num_scan_inputs=1)
    return graph.add("Squeeze", y, axis)


def _add_one_example(graph: Graph, block: DynamicBlock, x: str, output: str) -> None:
    """(1, in, F, T) -> (1, out, F', T')."""
    context, frequency_gate, time_gate = _add_context(graph, block.context_gen, x, block.use_attention)
    y = x
    if block.expands:
        y = _add_convolution(graph, block.exp_conv, block.exp_norm, y, context)
        y = graph.add(_activation(block.exp_act), y)
    y = _add_convolution(graph, block.depth_conv, block.depth_norm, y, context)
    if isinstance(block.depth_act, DynamicReLU):
        y = _add_dynamic_relu(graph, block.depth_act, y, context, frequency_gate)
    else:
        y = graph.add(_activation(block.depth_act), y)
        y = graph.add("Mul", y, frequency_gate) if frequency_gate else y
    y = graph.add("Mul", y, time_gate) if time_gate else y
    y = _add_convolution(graph, block.proj_conv, block.proj_norm, y, context, None if block.use_shortcut else output)
    if block.use_shortcut:
        graph.add("Add", x, y, output=output)


def _add_context(graph: Graph, generator: ContextGenerator, x: str, attention: bool) -> tuple[str, str | None, str | None]:
    """Return the context (1, H) and, with attention, the gates (1, C, F', 1) and (1, C, 1, T')."""
    joint = fuse_conv_bn_eval(generator.joint_conv, generator.joint_norm)
    weights = [graph.weight(joint.weight), graph.weight(joint.bias)]
    parts = []
    for axis in (3, 2):  # which leaves frequency, and time
        mean = graph.add("ReduceMean", x, graph.integers(axis))
        parts.append(graph.add("HardSwish", graph.add("Conv", mean, *weights)))
    frequency, time = parts
    positions = graph.add("Concat", frequency, graph.add("Transpose", time, perm=[0, 1, 3, 2]), axis=2)  # (1, H, F + T, 1)
    context = graph.add("ReduceMean", positions, graph.integers(2, 3), keepdims=0)
    if not attention:
        return context, None, None
    gates = []
    for part, conv, (f, t) in ((frequency, generator.conv_f, (1, 0)), (time, generator.conv_t, (0, 1))):
        if generator.stride > 1:
            kernel, strides = [1 + 2 * f, 1 + 2 * t], [1 + f * (generator.stride - 1), 1 + t * (generator.stride - 1)]
            part = graph.add("AveragePool", part, kernel_shape=kernel, strides=strides, pads=[f, t, f, t], count_include_pad=1)
        gates.append(graph.add("Sigmoid", graph.add("Conv", part, graph.weight(conv.weight), graph.weight(conv.bias))))
    return context, *gates


def _add_convolution(
    graph: Graph, conv: DynamicConv | StaticConv, norm: nn.BatchNorm2d, x: str, context: str, output: str | None = None
) -> str:
    if isinstance(conv, StaticConv):
        folded = fuse_conv_bn_eval(conv.module, norm)
        weights = graph.weight(folded.weight), graph.weight(folded.bias)
        return graph.add("Conv", x, *weights, output=output, **_geometry(folded.kernel_size, folded.stride, folded.groups))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    choice = conv.residuals[0]
    logits = _add_linear(graph, context, choice.weight / conv.temperature, choice.bias / conv.temperature)
    bank = conv.weight[0, 0].unflatten(1, (conv.out_channels, -1)) * scale[:, None]  # (K, out, values)
    bank = graph.add("Reshape", graph.weight(bank.flatten(0, 1)), graph.integers(len(bank), -1))
    kernel = graph.add("MatMul", graph.add("Softmax", logits, axis=-1), bank)  # (1, out * values)
    kernel = graph.add("Reshape", kernel, graph.integers(conv.out_channels, -1, *conv.kernel_size))
    groups = 1 if conv.kernel_size == (1, 1) else conv.out_channels
    return graph.add("Conv", x, kernel, graph.constant(shift), output=output, **_geometry(conv.kernel_size, conv.stride, groups))


def _add_dynamic_relu(graph: Graph, layer: DynamicReLU, x: str, context: str, gate: str | None) -> str:
    """(1, C, F, T), context and gate (1, C, F, 1) -> (1, C, F, T)."""
    linear = layer.coef_net[0]
    channels = linear.out_features // len(layer.lambdas)

    def by_coefficient(values: Tensor) -> Tensor:
        """(channels * 2 pieces, ...) -> the same with the channels of each coefficient side by side."""
        return values.unflatten(0, (channels, -1)).transpose(0, 1).flatten(0, 1)

    halves = _add_linear(graph, context, by_coefficient(linear.weight) / 2, by_coefficient(linear.bias) / 2)
    theta = graph.add("Tanh", halves)  # 2 sigmoid(x) - 1 = tanh(x / 2)
    scaled = graph.add("Mul", theta, graph.constant(layer.lambdas.repeat_interleave(channels)))
    coefficients = graph.add("Add", scaled, graph.constant(layer.init_v.repeat_interleave(channels)))
    coefficients = graph.add("Reshape", coefficients, graph.integers(len(layer.lambdas), channels, 1, 1))
    if gate:
        coefficients = graph.add("Mul", coefficients, gate)
    parts = graph.split(coefficients, [1] * len(layer.lambdas), axis=0)  # (1, C, 1 or F, 1) each
    pieces = len(parts) // 2
    lines = [graph.add("Add", graph.add("Mul", x, parts[m]), parts[pieces + m]) for m in range(pieces)]
    return graph.add("Max", *lines) if pieces > 1 else lines[0]


def _activation(layer: nn.Module) -> str:
    return "Relu" if isinstance(layer, nn.ReLU) else "HardSwish"


def _add_linear(graph: Graph, x: str, weight: Tensor, bias: Tensor) -> str:
    return graph.add("Gemm", x, graph.weight(weight), graph.weight(bias), transB=1)


def _geometry(kernel: tuple[int, int], stride: tuple[int, int], groups: int) -> dict[str, object]:
    padding = (kernel[0] - 1) // 2
    return {"kernel_shape": kernel, "strides": stride, "pads": [padding] * 4, "group": groups}
