"""The ranks of a training, started by torchrun or another launcher; a script started without one is a group of one rank."""

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

# Of torchrun, SLURM, Open MPI and other MPIs.
_LOCAL_RANK_VARIABLES = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")


@contextmanager
def group(cuda: bool) -> Iterator[torch.device]:
    """Join the ranks that a launcher started (environment variables WORLD_SIZE, RANK, MASTER_ADDR), and leave them at the end.

    Yields this rank's device: with `cuda` the GPU of its local rank (backend nccl), else the CPU (gloo).
    """
    device = pick_device(cuda)
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield device
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR") if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {' and '.join(missing)} is not set; start with torchrun, which sets "
            "them, or unset WORLD_SIZE"
        )
    os.environ.setdefault("MASTER_PORT", "29500")  # torchrun's own default
    if device.type == "cuda":
        available = torch.cuda.device_count()
        if local_rank() >= available:
            raise UserError(f"rank {local_rank()} of this machine has no GPU: there are {available}; lower --nproc_per_node")
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        timeout=timedelta(hours=2),  # a long download by one; when a rank dies, torchrun ends the others
        device_id=device if device.type == "cuda" else None,
    )
    if not is_main():
        logging.getLogger().setLevel(logging.ERROR)
    yield device
    dist.destroy_process_group()  # not after an error: it would wait for ranks that wait for this one


def rank() -> int:
    """Number of this rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Number of this rank among those of its machine, from 0.

    Where the launcher does not say, ranks fill the GPUs of one machine after another; without GPUs all are taken to be on one.
    """
    for variable in _LOCAL_RANK_VARIABLES:
        if variable in os.environ:
            return int(os.environ[variable])
    rank, gpus = int(os.environ.get("RANK", "0")), torch.cuda.device_count()
    return rank % gpus if gpus else rank


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this rank is the one that writes and logs."""
    return rank() == 0


@contextmanager
def local_main_first() -> Iterator[None]:
    """Let the first rank of each machine do something, such as a download, before its other ranks do the same."""
    is_first = local_rank() == 0
    if dist.is_initialized() and not is_first:
        dist.barrier()
    yield
    if dist.is_initialized() and is_first:
        dist.barrier()


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a floating-point tensor over the ranks."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def gather(value: Any) -> list[Any]:
    """Return the values of all ranks, by rank; they are pickled in between."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
