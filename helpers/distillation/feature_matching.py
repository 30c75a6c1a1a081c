"""Feature distillation: every block of the student learns the output of the teacher's block (FitNets, Romero et al., ICLR 2015).

Block-wise, each block gets the teacher's features as its input: all blocks learn at once, none waits for those before it.
Afterwards each one learns with the student's own features, end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from models.base import TaggingNetwork
from models.errors import UserError

VARIANCE_FLOOR = 0.05  # share of the mean variance that is added to a channel's, as hardly any channel is constant for a reason
RIDGE = 1e-3  # share of the mean energy of a student's channel, in the least squares of an adapter


def check_blocks(student: TaggingNetwork, teacher: TaggingNetwork, blockwise: bool) -> None:
    """UserError where the student's blocks cannot learn the teacher's: other numbers, sizes, or, block-wise, channels."""
    if student.step_seconds or teacher.step_seconds:
        raise UserError("--feature_kd is for networks that score clips, not for frame-wise ones")
    if student.arch.strides != teacher.arch.strides or student.arch.dilated != teacher.arch.dilated or student.mel != teacher.mel:
        raise UserError("--feature_kd needs feature maps of equal size: strides, dilation and front end like the teacher's")
    if blockwise and student.stage_channels != teacher.stage_channels:
        raise UserError("--blockwise_epochs gives blocks the teacher's features and needs the teacher's width; use 0 for others")


@contextmanager
def block_outputs(network: TaggingNetwork, inputs: Sequence[Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Collect the outputs of the blocks of `network.features` in each forward pass within the context.

    With `inputs`, the outputs of a teacher's blocks, each block but the first and the head get these in place of the one
    before them.
    """
    outputs: list[Tensor] = []
    modules = [*network.features, network.classifier]
    handles = [module.register_forward_hook(lambda _, args, output: outputs.append(output)) for module in modules[:-1]]
    if inputs is not None:
        for module, features in zip(modules[1:], inputs, strict=True):
            handles.append(module.register_forward_pre_hook(lambda _, args, features=features: (features,)))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def relative_errors(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """For each block, the mean over the channels of mean squared error over variance: 0 is equal, 1 says nothing.

    Of logits (B, K) a batch has too few for the variance of each class: their error is divided by the mean variance.
    Where the student has other channels, its features are first mapped by the linear adapter that fits this batch best.
    """
    with torch.autocast(outputs[0].device.type, enabled=False):
        return [_relative_error(output.float(), target.float()) for output, target in zip(outputs, targets, strict=True)]


def _relative_error(output: Tensor, target: Tensor) -> Tensor:
    if output.shape[1] != target.shape[1]:
        output = _adapted(output, target)
    axes = [axis for axis in range(target.ndim) if axis != 1]
    variance = target.var(axes, correction=0)
    error = (output - target).square().mean(axes)
    if target.ndim == 2:
        return error.mean() / (variance.mean() + 1e-12)
    return (error / (variance + VARIANCE_FLOOR * variance.mean() + 1e-12)).mean()


def _adapted(output: Tensor, target: Tensor) -> Tensor:
    """Map (B, C, F, T) to the channels of the target by ridge regression; gradients treat the map as constant, as at an optimum."""
    source = output.movedim(1, -1)
    flat = source.detach().flatten(0, -2)
    flat = torch.cat([flat, torch.ones_like(flat[:, :1])], 1)
    gram = flat.T @ flat
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    weight, _ = torch.linalg.solve_ex(gram, flat.T @ target.movedim(1, -1).flatten(0, -2))  # `solve` would wait for a GPU
    return (source @ weight[:-1] + weight[-1]).movedim(-1, 1)
