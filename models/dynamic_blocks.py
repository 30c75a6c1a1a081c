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
from models.in_place import add, may_overwrite, scale


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

    def forward(self, x: Tensor, context: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """(B, in, F, T) and context (B, H) -> convolved and normalised, (B, out, F', T').

        In evaluation mode the norm is folded into each example's kernel, which saves a pass over the result.
        """
        share = (self.residuals(context) / self.temperature).softmax(-1)  # (B, kernels)
        kernels = (share @ self.weight[0, 0]).unflatten(1, (self.out_channels, -1))  # (B, out, values)
        if norm.training:
            return norm(self._convolve(x, kernels, None))
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self._convolve(x, kernels * factor[:, None], norm.bias - norm.running_mean * factor)

    def _convolve(self, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve each example with its kernel: 1x1 as a product of matrices, depthwise with the batch among the channels."""
        batch, _, *size = x.shape
        if self.kernel_size == (1, 1):
            flat = x.flatten(2)
            y = torch.bmm(kernels, flat) if bias is None else torch.baddbmm(bias[:, None], kernels, flat)
            return y.unflatten(2, size)
        kernels = kernels.reshape(-1, 1, *self.kernel_size)
        bias = None if bias is None else bias.repeat(batch)
        padding, groups = (self.kernel_size[0] - 1) // 2, batch * self.out_channels
        y = functional.conv2d(x.reshape(1, groups, *size), kernels, bias, self.stride, padding, groups=groups)
        return y.view(batch, self.out_channels, *y.shape[2:])


class StaticConv(nn.Module):
    """An ordinary convolution in the place of a `DynamicConv`, under the names that checkpoints have for it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        groups = 1 if kernel == 1 else out_channels
        self.module = nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)

    def forward(self, x: Tensor, context: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """(B, in, F, T) -> convolved and normalised, (B, out, F', T')."""
        return norm(self.module(x))


class DynamicReLU(nn.Module):
    """The maximum of `pieces` linear functions for each channel, whose slopes and intercepts the context chooses."""

    def __init__(self, channels: int, context_size: int, pieces: int):
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context_size, 2 * pieces * channels))
        self.register_buffer("lambdas", torch.tensor([1.0] * pieces + [0.5] * pieces))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * pieces - 1)))  # ReLU where the linear layer gives 0

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, C, F, T) and context (B, H) -> (B, C, F, T)."""
        theta = 2 * torch.sigmoid(self.coef_net(context)) - 1
        coefficients = theta.unflatten(1, (x.shape[1], -1)) * self.lambdas + self.init_v  # (B, C, slopes and intercepts)
        slopes, intercepts = coefficients.to(x.dtype)[..., None, None].chunk(2, dim=2)  # (B, C, pieces, 1, 1) each
        y, *lines = ((x * slope).add_(intercept) for slope, intercept in zip(slopes.unbind(2), intercepts.unbind(2), strict=True))
        for line in lines:
            y = torch.maximum(y, line, out=y if may_overwrite(y, line) else None)
        return y


class ContextGenerator(nn.Module):
    """What a block's coefficients are computed from: a vector for the example, and attention over frequency and over time."""

    def __init__(self, in_channels: int, channels: int, context_size: int, stride: int):
        super().__init__()
        self.stride = stride
        self.joint_conv = nn.Conv2d(in_channels, context_size, 1, bias=False)
        self.joint_norm = nn.BatchNorm2d(context_size, eps=0.001, momentum=0.01)
        self.conv_f = nn.Conv2d(context_size, channels, 1)
        self.conv_t = nn.Conv2d(context_size, channels, 1)

    def forward(self, x: Tensor, attention: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, in, F, T) -> context (B, H), and with `attention` the gates (B, C, F', 1) and (B, C, 1, T') of the strided size."""
        bands = x.shape[2]
        means = torch.cat([x.mean(3), x.mean(2)], dim=2).unsqueeze(3)  # (B, in, F + T, 1)
        positions = functional.hardswish(self.joint_norm(self.joint_conv(means)))
        context = positions.mean((2, 3))  # each position counts once
        if not attention:
            return context, None, None
        frequency, time = positions[:, :, :bands], positions[:, :, bands:]
        if self.stride > 1:
            frequency, time = (functional.avg_pool2d(one, (3, 1), (self.stride, 1), (1, 0)) for one in (frequency, time))
        return context, self.conv_f(frequency).sigmoid(), self.conv_t(time).sigmoid().transpose(2, 3)


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
            return nn.BatchNorm2d(channels, eps=0.001, momentum=0.01)

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
        x = x.contiguous()  # the batch goes among the channels, and 1x1 kernels are matrices
        context, frequency_gate, time_gate = self.context_gen(x, self.use_attention)
        y = x
        if self.expands:
            y = self.exp_act(self.exp_conv(y, context, self.exp_norm))
        y = self.depth_conv(y, context, self.depth_norm)
        y = self.depth_act(y, context) if isinstance(self.depth_act, DynamicReLU) else self.depth_act(y)
        if self.use_attention:
            y = scale(scale(y, frequency_gate), time_gate)
        y = self.proj_conv(y, context, self.proj_norm)
        return add(y, x) if self.use_shortcut else y
