"""Optimization: learning-rate schedules, parameter groups, the moving average of weights, statistics of batch norms."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.base import TaggingNetwork
from models.errors import UserError


def exp_warmup_linear_down(
    epoch: int, warm_up_len: int = 8, ramp_down_start: int = 80, ramp_down_len: int = 95, last_value: float = 0.01
) -> float:
    """Return the factor at `epoch` (from 0): exponential ramp up, constant, linear ramp down, constant.

    Ramp up: exp(-5 (1 - e / warm_up_len)^2) with e clipped to at least 0.5 (Schmid et al., ICASSP 2023). All lengths in epochs.
    """
    factor = 1.0
    if epoch < warm_up_len:
        factor = math.exp(-5.0 * (1.0 - max(epoch, 0.5) / warm_up_len) ** 2)
    if epoch > ramp_down_start:
        remaining = max(1.0 - (epoch - ramp_down_start) / ramp_down_len, 0.0) if ramp_down_len else 0.0
        factor *= last_value + (1.0 - last_value) * remaining
    return factor


def linear_warmup_cosine_down(epoch: int, n_epochs: int, warm_up_len: int) -> float:
    """Return the factor at `epoch` (from 0): linear ramp up, then half a cosine that would be 0 at `n_epochs`.

    SGDR without restarts (Loshchilov and Hutter, ICLR 2017). All lengths in epochs.
    """
    if epoch < warm_up_len:
        return (epoch + 1) / (warm_up_len + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (epoch - warm_up_len) / (n_epochs - warm_up_len)))


def schedule_from_options(args: argparse.Namespace) -> Callable[[int], float]:
    """Return the factor by epoch that the options of `options.add_schedule_options` describe."""
    return lambda epoch: exp_warmup_linear_down(
        epoch, args.warm_up_len, args.ramp_down_start, args.ramp_down_len, args.last_lr_value
    )


def parameter_groups(network: TaggingNetwork, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The network's parameters by part, each with its learning rate; parts whose rate is 0 are frozen and left out."""
    rates = {"features": args.features_lr, "classifier": args.classifier_lr, "last_layer": args.last_layer_lr}
    rates = {part: args.max_lr if rate is None else rate for part, rate in rates.items()}
    if args.linear_probe:
        rates |= {"features": 0.0, "classifier": 0.0}
    groups: dict[str, list[nn.Parameter]] = {part: [] for part in rates}
    for name, parameter in network.named_parameters():
        part = "last_layer" if name.startswith(network.last_layer) else "features"
        if part == "features" and name.startswith("classifier."):
            part = "classifier"
        if rates[part] == 0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:  # what a network does not use is frozen as well
            groups[part].append(parameter)
    trained = [{"params": groups[part], "lr": rate} for part, rate in rates.items() if groups[part]]
    if not trained:
        raise UserError("all learning rates are 0, so there is nothing to train; give --last_layer_lr or another one")
    return trained


class MovingAverage(AveragedModel):
    """An average of weights and batch-norm statistics that keeps `decay` of itself at each step.

    In step t it keeps no more than (1 + t) / (10 + t), so that the average of a short training does not hold its first weights
    (as TensorFlow's ExponentialMovingAverage with `num_updates` does). Steps are counted on the CPU: nothing is copied to a GPU.
    """

    def __init__(self, network: TaggingNetwork, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        steps = int(self.n_averaged)
        change = float((9.0 / (self.n_averaged + 10.0)).clamp(min=1.0 - self.decay))  # a float32 of the CPU
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        for floats in (True, False):  # by type, as foreach operations are fast; counters of batches are whole numbers
            averages = [average for average, _ in pairs if average.is_floating_point() == floats]
            currents = [current for _, current in pairs if current.is_floating_point() == floats]
            if steps:
                changes = torch._foreach_mul(torch._foreach_sub(currents, averages), change)
                currents = torch._foreach_add(averages, changes)
            torch._foreach_copy_(averages, currents)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())


def set_batch_norm_momentum(network: TaggingNetwork, momentum: float) -> None:
    """Set the share of a step's statistics in the running ones of every batch norm."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of all batch norms by the means of the batches' own; the model is then in evaluation mode.

    After a short training the running ones are those of former weights, and of augmented clips. A batch is an input of the model.
    torch's `update_bn` computes them in training mode, with dropout and augmentation.
    Raises ValueError where there is no batch.
    """
    model.eval()
    norms = {module: module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all
        norm.train()
    count = 0
    for count, batch in enumerate(batches, 1):  # noqa: B007
        model(batch)
    for norm, momentum in norms.items():
        norm.momentum = momentum
        norm.eval()
    if not count:
        raise ValueError("there are no batches to compute statistics from; give one or more")
