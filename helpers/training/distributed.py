"""Processes that work together, as torchrun starts them; a script started without torchrun is a group of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from helpers.devices import pick_device
from models.errors import UserError


@contextmanager
def group(cuda: bool) -> Iterator[torch.device]:
    """Join the processes that torchrun started (environment variables RANK, WORLD_SIZE, LOCAL_RANK), and leave them at the end.

    Yields this process's device: with `cuda` the GPU of its local rank (backend nccl), else the CPU (gloo).
    """
    device = pick_device(cuda)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        local_rank, available = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= available:
            raise UserError(f"process {local_rank} of this machine has no GPU: there are {available}; lower --nproc_per_node")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        timeout=timedelta(hours=2),  # a long download by one; when a process dies, torchrun ends the others
        device_id=device if device.type == "cuda" else None,
    )
    if not is_main():
        logging.getLogger().setLevel(logging.ERROR)
    yield device
    dist.destroy_process_group()  # not after an error: it would wait for processes that wait for this one


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes and logs."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """Let the first process of each machine do something, such as a download, before the others do the same."""
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    if dist.is_initialized() and not is_first:
        dist.barrier()
    yield
    if dist.is_initialized() and is_first:
        dist.barrier()


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a floating-point tensor over the processes."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank; they are pickled in between."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
