"""The dynamic block of DyMN: convolutions, activation and attention whose coefficients are computed from the block's input.

Dynamic convolution (Chen et al., CVPR 2020), dynamic ReLU B (Chen et al., ECCV 2020) and coordinate attention (Hou et al., CVPR
2021), all from one context (Schmid et al., TASLP 2024). The order and names of submodules fix the names in the state dict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.blocks import BlockConfig, make_divisible
from models.config import DyMNArch
from models.in_place import BatchNorm2d, add, may_overwrite, scale


def fastest_format(*tensors: Tensor) -> torch.memory_format:
    """On the CPU, channels last are about twice as fast. Elsewhere, and in training, one convolution takes the whole batch."""
    on_cpu = tensors[0].device.type == "cpu"
    return torch.channels_last if on_cpu and may_overwrite(*tensors) else torch.contiguous_format


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class DynamicConv(nn.Module):
    """A convolution whose kernel is a weighted mean of `kernels` kernels, with weights chosen for each example by its context.

    Weights are the softmax of a linear layer's result over `temperature`: the higher, the more uniform. It is 1x1 if `kernel` is 1
    and depthwise otherwise.
    """

    def __init__(self, in_channels: int, out_channels: int, context_size: int, kernels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.out_channels = out_channels
        self.kernel_size, self.stride, self.dilation = (kernel, kernel), (stride, stride), (1, 1)  # as nn.Conv2d has them
        self.temperature = 1.0
        values = out_channels * (in_channels if kernel == 1 else kernel * kernel)
        self.weight = nn.Parameter(torch.empty(1, 1, kernels, values))  # in the order (out, in / groups, frequency, time)
        self.residuals = nn.Sequential(nn.Linear(context_size, kernels))
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, 0, (2 / (out_channels * kernel * kernel)) ** 0.5)  # Kaiming normal, fan out

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, in, F, T) and context (B, H) -> (B, out, F', T')."""
        share = (self.residuals(context) / self.temperature).softmax(-1)  # (B, kernels)
        kernels = (share @ self.weight[0, 0]).unflatten(1, (self.out_channels, -1))  # (B, out, values)
        return self._pointwise(x, kernels) if self.kernel_size == (1, 1) else self._depthwise(x, kernels)

    def _pointwise(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Multiply the matrix of each example by the example."""
        if is_channels_last(x):
            y = torch.bmm(x.permute(0, 2, 3, 1).flatten(1, 2), kernels.transpose(1, 2))  # (B, positions, out)
            return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return torch.bmm(kernels, x.flatten(2)).unflatten(2, x.shape[2:])

    def _depthwise(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Convolve one example after the other or, where channels are not last, all with the batch among the channels."""
        kernels = kernels.unflatten(2, (1, *self.kernel_size))  # (B, out, 1, frequency, time)
        padding = (self.kernel_size[0] - 1) // 2
        if is_channels_last(x):
            pairs = zip(x.split(1), kernels, strict=True)
            parts = [functional.conv2d(one, kernel, None, self.stride, padding, groups=len(kernel)) for one, kernel in pairs]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        batch, channels, *size = x.shape
        groups = batch * channels
        y = functional.conv2d(x.reshape(1, groups, *size), kernels.flatten(0, 1), None, self.stride, padding, groups=groups)
        return y.view(batch, channels, *y.shape[2:])


class StaticConv(nn.Module):
    """An ordinary convolution in the place of a `DynamicConv`, under the names that checkpoints have for it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        groups = 1 if kernel == 1 else out_channels
        self.module = nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, in, F, T) -> (B, out, F', T')."""
        return self.module(x)


class DynamicReLU(nn.Module):
    """The maximum of `pieces` linear functions for each channel, whose slopes and intercepts the context chooses."""

    def __init__(self, channels: int, context_size: int, pieces: int):
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context_size, 2 * pieces * channels))
        self.register_buffer("lambdas", torch.tensor([1.0] * pieces + [0.5] * pieces))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * pieces - 1)))  # ReLU where the linear layer gives 0

    def forward(self, x: Tensor, context: Tensor, gate: Tensor | None = None) -> Tensor:
        """(B, C, F, T) and context (B, H) -> (B, C, F, T), multiplied by a gate (B, C, F, 1), which must not be negative.

        Where no gradients are recorded, it may be in the memory of x.
        """
        theta = 2 * torch.sigmoid(self.coef_net(context)) - 1
        coefficients = theta.unflatten(1, (x.shape[1], -1)) * self.lambdas + self.init_v  # (B, C, slopes and intercepts)
        coefficients = coefficients.to(x.dtype)[..., None, None].unbind(2)  # (B, C, 1, 1) each
        if gate is not None:  # cheaper than a multiplication of the maximum
            coefficients = [coefficient * gate for coefficient in coefficients]
        slopes, intercepts = coefficients[: len(coefficients) // 2], coefficients[len(coefficients) // 2 :]
        overwrite = may_overwrite(x, *coefficients)
        *pieces, last = zip(intercepts, slopes, strict=True)
        lines = [torch.addcmul(intercept, x, slope) for intercept, slope in pieces]
        y = torch.addcmul(last[0], x, last[1], out=x if overwrite else None)
        for line in lines:
            y = torch.maximum(y, line, out=y if overwrite else None)
        return y


class PositionConv(nn.Conv2d):
    """A 1x1 convolution along one axis with channels last, as the linear layer that it is."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, positions, in) -> (B, positions, out)."""
        return functional.linear(x, self.weight.flatten(1), self.bias)


class ContextGenerator(nn.Module):
    """What a block's coefficients are computed from: a vector for the example, and attention over frequency and over time."""

    def __init__(self, in_channels: int, channels: int, context_size: int, stride: int):
        super().__init__()
        self.stride = stride
        self.joint_conv = PositionConv(in_channels, context_size, bias=False)
        self.joint_norm = BatchNorm2d(context_size, eps=0.001, momentum=0.01)
        self.conv_f = PositionConv(context_size, channels)
        self.conv_t = PositionConv(context_size, channels)

    def forward(self, x: Tensor, attention: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, in, F, T) -> context (B, H), and with `attention` the gates (B, C, F', 1) and (B, C, 1, T') of the strided size."""
        bands = x.shape[2]
        by_position = x.permute(0, 2, 3, 1)  # in whose order means are computed faster
        means = torch.cat([by_position.mean(2), by_position.mean(1)], dim=1)  # (B, F + T, in)
        joint = self.joint_conv(means)
        normalised = self.joint_norm(joint.flatten(0, 1)[..., None, None]).view(joint.shape)
        positions = functional.hardswish(normalised)
        context = positions.mean(1)  # each position counts once
        if not attention:
            return context, None, None
        layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        gates = []
        for part, conv in ((positions[:, :bands], self.conv_f), (positions[:, bands:], self.conv_t)):
            if self.stride > 1:
                part = functional.avg_pool1d(part.transpose(1, 2), 3, self.stride, 1).transpose(1, 2)
            gates.append(conv(part).sigmoid().transpose(1, 2).unsqueeze(3).contiguous(memory_format=layout))
        frequency_gate, time_gate = gates
        return context, frequency_gate, time_gate.transpose(2, 3)


class DynamicBlock(nn.Module):
    """An inverted residual whose convolutions, activation and attention depend on its input; shortcut where shapes allow."""

    def __init__(self, config: BlockConfig, arch: DyMNArch):
        super().__init__()
        inputs, expanded, outputs = config.in_channels, config.expanded_channels, config.out_channels
        limits = (make_divisible(size * arch.width_mult) for size in (arch.min_context_size, arch.max_context_size))
        smallest, largest = limits
        context_size = min(max(make_divisible(expanded // arch.context_ratio), smallest), largest)

        def convolution(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> DynamicConv | StaticConv:
            if arch.no_dyconv:
                return StaticConv(in_channels, out_channels, kernel, stride)
            return DynamicConv(in_channels, out_channels, context_size, arch.dyconv_k, kernel, stride)

        def norm(channels: int) -> nn.BatchNorm2d:
            return BatchNorm2d(channels, eps=0.001, momentum=0.01)

        self.use_shortcut = config.stride == 1 and inputs == outputs
        self.use_attention = not arch.no_ca
        self.expands = expanded != inputs
        if self.expands:
            self.exp_conv = convolution(inputs, expanded)
            self.exp_norm = norm(expanded)
            self.exp_act = config.activation(inplace=True)
        self.depth_conv = convolution(expanded, expanded, config.kernel, config.stride)
        self.depth_norm = norm(expanded)
        self.depth_act = config.activation(inplace=True) if arch.no_dyrelu else DynamicReLU(expanded, context_size, arch.dyrelu_k)
        self.proj_conv = convolution(expanded, outputs)
        self.proj_norm = norm(outputs)
        self.context_gen = ContextGenerator(inputs, expanded, context_size, config.stride)
        if not self.use_attention:  # in the state dict all the same; a distributed training waits for all gradients
            self.context_gen.conv_f.requires_grad_(False)
            self.context_gen.conv_t.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, F, T) -> (B, out, F', T')."""
        x = x.contiguous(memory_format=fastest_format(x, self.context_gen.joint_conv.weight))
        context, frequency_gate, time_gate = self.context_gen(x, self.use_attention)
        y = x
        if self.expands:
            y = self.exp_act(self.exp_norm(self.exp_conv(y, context)))
        y = self.depth_norm(self.depth_conv(y, context))
        if isinstance(self.depth_act, DynamicReLU):
            y = self.depth_act(y, context, frequency_gate)
        else:
            y = self.depth_act(y)
            y = y if frequency_gate is None else scale(y, frequency_gate)
        y = y if time_gate is None else scale(y, time_gate)
        y = self.proj_norm(self.proj_conv(y, context))
        return add(y, x) if self.use_shortcut else y
