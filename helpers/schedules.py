"""Learning-rate schedules, as factors of the peak rate, stepped once an epoch."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def from_options(args: argparse.Namespace) -> Callable[[int], float]:
    """Return the factor by epoch that the options of `cli.add_schedule_options` describe."""
    return lambda epoch: exp_warmup_linear_down(
        epoch, args.warm_up_len, args.ramp_down_start, args.ramp_down_len, args.last_lr_value
    )


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
