"""Inference in little memory: blocks are computed in chunks of their expanded channels.

After MobileNetV2 (Sandler et al., CVPR 2018, Sec. 5.1) and MCUNetV2 (Lin et al., NeurIPS 2021). `helpers.costs.activation_memory`
has the arithmetic. Convolutions are accumulated in place, in plain memory layout: those of PyTorch's libraries would allocate
workspaces and reordered copies as large as what is saved here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.blocks import AXES, ConvNormActivation, InvertedResidual, conv_out_size
from models.errors import UserError
from models.network import MobileNetV3

CHANNEL_CHUNKS = 8  # of a block's expanded channels


def memory_efficient(network: MobileNetV3, *, two_passes: bool = False) -> MobileNetV3:
    """Return a copy of `network` for inference, which computes the same with fewer activations in memory at once.

    Batch norms are folded into the convolutions, so parameters have other names; `.half()` stores and computes in float16. Stem
    and first block are one. A block without squeeze-and-excitation never holds its expanded tensor, one with it holds it once, or,
    with `two_passes`, never: its chunks are computed once for the means and again to be gated. That costs time and lowers the peak
    of networks whose peak is in such a block: those that stride less than 2 2 2 2.
    """
    check_family(network)
    network = copy.deepcopy(network).eval().requires_grad_(False)
    stem, first, *blocks, last = network.features
    network.features = nn.Sequential(
        ChunkedBlock(first, stem=stem),
        *(ChunkedBlock(block, two_passes=two_passes) for block in blocks),
        FoldedPointwiseConv(*last),
    )
    if network.arch.head_type == "fully_convolutional" and network.arch.num_classes:
        convolution, norm, *pooling = network.classifier
        network.classifier = nn.Sequential(FoldedPointwiseConv(convolution, norm), *pooling)
    return network


def check_family(network: nn.Module) -> None:
    """Raise `UserError` for a network that cannot be computed in chunks."""
    if not isinstance(network, MobileNetV3):
        raise UserError(f"memory-efficient inference is for networks of the family MobileNetV3, not for a {type(network).__name__}")


class FoldedPointwiseConv(nn.Module):
    """A 1x1 convolution with its batch norm folded in and, if given, an activation."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = fuse_conv_bn_eval(convolution, norm)
        self.activation = activation or nn.Identity()

    @torch.no_grad()
    def forward(self, x: Tensor, channels: slice = slice(None)) -> Tensor:
        """(B, in, F, T) -> those `channels` of (B, out, F, T)."""
        out = _filled(self.convolution.bias[channels], x, x.shape[2:])
        _add_pointwise(out, x, self.convolution.weight[channels])
        return self.activation(out)


class FoldedDepthwiseConv(nn.Module):
    """A convolution whose output channels each read one input channel (depthwise, or the stem), its batch norm folded in.

    Computed as a sum of the input shifted by the offsets of the kernel, each times its weight.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, activation: nn.Module) -> None:
        super().__init__()
        self.convolution = fuse_conv_bn_eval(convolution, norm)
        self.activation = activation

    @torch.no_grad()
    def forward(self, x: Tensor, channels: slice) -> Tensor:
        """(B, 1 or as many as `channels`, F, T) -> those `channels` of (B, out, F', T')."""
        conv = self.convolution
        kernel, stride, dilation, padding = (value[0] for value in (conv.kernel_size, conv.stride, conv.dilation, conv.padding))
        weight = conv.weight[channels]  # (channels, 1, kernel, kernel)
        out = _filled(conv.bias[channels], x, [conv_out_size(size, kernel, stride, dilation) for size in x.shape[2:]])
        for row in range(kernel):
            to_f, from_f = _overlap(x.shape[2], out.shape[2], row * dilation - padding, stride)
            for column in range(kernel):
                to_t, from_t = _overlap(x.shape[3], out.shape[3], column * dilation - padding, stride)
                out[:, :, to_f, to_t].addcmul_(x[:, :, from_f, from_t], weight[:, :, row, column, None])
        return self.activation(out)


class ChunkedBlock(nn.Module):
    """An inverted residual computed in chunks of its expanded channels; with `stem`, whose chunks are the first block's."""

    def __init__(self, block: InvertedResidual, *, stem: ConvNormActivation | None = None, two_passes: bool = False) -> None:
        super().__init__()
        *expansion, depthwise, projection = (layer for layer in block.block if isinstance(layer, ConvNormActivation))
        self.stem = FoldedDepthwiseConv(*stem) if stem is not None else None
        self.expansion = FoldedPointwiseConv(*expansion[0]) if expansion else None
        self.depthwise = FoldedDepthwiseConv(*depthwise)
        self.projection = FoldedPointwiseConv(*projection)
        self.squeeze_excitation = block.squeeze_excitation
        self.use_shortcut = block.use_shortcut
        self.two_passes = two_passes
        size = self.depthwise.convolution.out_channels // CHANNEL_CHUNKS  # numbers of channels are multiples of 8
        self.chunks = [slice(index * size, (index + 1) * size) for index in range(CHANNEL_CHUNKS)]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, in, F, T) -> (B, out, F', T'). Locals of the methods below, and their memory, are released after each chunk."""
        if self.squeeze_excitation is None:
            out = self._initial_output(x)
            for channels in self.chunks:
                self._add_chunk(out, x, channels)
            return out
        held = [] if self.two_passes else [self._expanded(x, channels) for channels in self.chunks]
        chunks = held or (self._expanded(x, channels) for channels in self.chunks)
        gates = self._gates(list(map(self._means, chunks)))
        out = self._initial_output(x)
        for channels in self.chunks:
            self._add_gated(out, held.pop(0) if held else self._expanded(x, channels), gates, channels)
        return out

    def _input(self, x: Tensor, channels: slice) -> Tensor:
        """Return what the depthwise convolution reads for these of its channels."""
        if self.stem is not None:
            return self.stem(x, channels)
        return x[:, channels] if self.expansion is None else self.expansion(x, channels)

    def _expanded(self, x: Tensor, channels: slice) -> Tensor:
        return self.depthwise(self._input(x, channels), channels)

    def _initial_output(self, x: Tensor) -> Tensor:
        """Return the output before any chunk is added: the projection's bias and, but for the first block, the shortcut."""
        bias = self.projection.convolution.bias
        if self.stem is None and self.use_shortcut:
            return x + bias[:, None, None]
        size = x.shape[2:]
        for layer in (self.stem, self.depthwise):
            if layer is not None:
                conv = layer.convolution
                size = [conv_out_size(n, conv.kernel_size[0], conv.stride[0], conv.dilation[0]) for n in size]
        return _filled(bias, x, size)

    def _add_chunk(self, out: Tensor, x: Tensor, channels: slice) -> None:
        read = self._input(x, channels)
        if self.stem is not None and self.use_shortcut:
            out[:, channels] += read
        _add_pointwise(out, self.depthwise(read, channels), self.projection.convolution.weight[:, channels])

    def _add_gated(self, out: Tensor, chunk: Tensor, gates: dict[str, Tensor], channels: slice) -> None:
        scales = [gate[:, channels] if axis == "c" else gate for axis, gate in gates.items()]
        gated = chunk.mul_(scales[0]) if len(scales) == 1 else self.squeeze_excitation.fuse([chunk * scale for scale in scales])
        _add_pointwise(out, gated, self.projection.convolution.weight[:, channels])

    def _means(self, chunk: Tensor) -> dict[str, Tensor]:
        """Return the means of some channels over all axes but one, for each axis that is squeezed: (B, size)."""
        axes = [layer.axis for layer in self.squeeze_excitation.conc_se_layers]
        return {axis: chunk.mean([other for other in (1, 2, 3) if other != AXES[axis]]) for axis in axes}

    def _gates(self, means: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the gate of each axis, of 4 axes as the tensors they scale."""
        gates = {}
        for layer in self.squeeze_excitation.conc_se_layers:
            if layer.axis == "c":
                mean = torch.cat([one["c"] for one in means], 1)
            else:
                mean = torch.stack([one[layer.axis] for one in means]).mean(0)  # chunks are of one size
            gates[layer.axis] = layer.gate(layer.bottleneck(mean))
        return gates


def _filled(bias: Tensor, x: Tensor, size: Iterable[int]) -> Tensor:
    """Return (B, channels, F, T) filled with the bias of each channel, B being that of `x`."""
    return bias.view(1, -1, 1, 1).expand(len(x), -1, *size).clone(memory_format=torch.contiguous_format)


def _add_pointwise(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add to `out` (B, out, F, T) the 1x1 convolution of `x` (B, in, F, T) with `weight` (out, in, 1, 1)."""
    for sums, clip in zip(out, x, strict=True):
        sums.flatten(1).addmm_(weight.flatten(1), clip.flatten(1))


def _overlap(in_size: int, out_size: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Return which outputs along an axis read an input at `offset` from stride * output, and which inputs they read."""
    first = max(0, -(offset // stride))  # the least output with stride * output + offset >= 0
    count = max(0, min(out_size - first, -((first * stride + offset - in_size) // stride)))
    start = first * stride + offset
    return slice(first, first + count), slice(start, start + (count - 1) * stride + 1 if count else start, stride)
