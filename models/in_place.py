"""Layers that overwrite their input where nothing else needs it, or take less memory, with the same bits as those of PyTorch.

Memory that is not allocated need not be mapped and cleared either, which takes much of the time of a norm on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

COPIED_BYTES = 8 << 20  # of a depthwise convolution's input at once: what stays in the cache; a single clip may have more


def may_overwrite(*tensors: Tensor) -> bool:
    """Whether an operation on these tensors needs none of them for gradients, and is run now, not traced or transformed."""
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    transformed = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
    return not recorded and not transformed


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` that takes a few clips at a time where no gradients are recorded: on the CPU, oneDNN copies the input first."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.ndim != 4 or len(x) < 2 or not may_overwrite(x, self.weight):
            return super().forward(x)
        clips = max(1, COPIED_BYTES // max(1, x[0].nbytes))
        parts = [super(DepthwiseConv2d, self).forward(part) for part in x.split(clips)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that works in place in evaluation on the CPU, where no gradients are recorded."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or x.device.type != "cpu" or not may_overwrite(x, self.weight, self.bias):
            return super().forward(x)
        statistics = (self.weight.new_empty(0), self.weight.new_empty(0))  # of the batch: not computed in evaluation
        parameters = (self.weight, self.bias, self.running_mean, self.running_var)
        return torch.native_batch_norm(x, *parameters, False, 0.0, self.eps, out=(x, *statistics))[0]


class Hardswish(nn.Hardswish):
    """`nn.Hardswish` that works in place where no gradients are recorded: they need the input, and in place it would be copied."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.hardswish(x, inplace=may_overwrite(x))


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Return x * factor, where possible in the memory of x."""
    return x.mul_(factor) if may_overwrite(x, factor) and x.dtype == factor.dtype else x * factor


def add(x: Tensor, shortcut: Tensor) -> Tensor:
    """Return x + shortcut, where possible in the memory of x."""
    return x.add_(shortcut) if may_overwrite(x, shortcut) and x.dtype == shortcut.dtype else x + shortcut
