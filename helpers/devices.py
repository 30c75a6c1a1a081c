"""Processors and GPUs of this machine."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def available_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(cuda: bool) -> torch.device:
    """Return the device to compute on; on a machine without CUDA, `--cuda` is the CPU, with a warning."""
    import torch

    if cuda and not torch.cuda.is_available():
        logger.warning("--cuda: this machine has no usable CUDA device; running on the CPU")
    return torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")
