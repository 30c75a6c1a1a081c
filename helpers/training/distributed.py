"""The ranks of a training, started by torchrun or another launcher; a script started without one is a group of one rank."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.devices import pick_device
from models.errors import UserError

START_TIMEOUT = timedelta(minutes=5)  # for all ranks to start
STEP_TIMEOUT = timedelta(minutes=30)  # for all GPUs to reach the same step
WAIT_TIMEOUT = timedelta(hours=2)  # for one rank that downloads, or reads a large data set for the first time
# Of torchrun, Open MPI, other MPIs and, last because mpirun in a SLURM job inherits it as 0, SLURM.
_LOCAL_RANK_VARIABLES = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")

_waiting: dist.ProcessGroup | None = None  # the group in which ranks wait for each other on the CPU


@contextmanager
def group(cuda: bool) -> Iterator[torch.device]:
    """Join the ranks that a launcher started (environment variables WORLD_SIZE, RANK, MASTER_ADDR), and leave them at the end.

    Yields this rank's device: with `cuda` the GPU of its local rank (backend nccl), else the CPU (gloo).
    """
    device = pick_device(cuda)
    if _int("WORLD_SIZE") in (None, 1):
        yield device
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR") if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {' and '.join(missing)} is not set; start with torchrun, which sets "
            "them, or unset WORLD_SIZE"
        )
    if _int("RANK") >= _int("WORLD_SIZE"):
        raise UserError(f"RANK is {os.environ['RANK']} of WORLD_SIZE {os.environ['WORLD_SIZE']}; ranks are numbered from 0")
    if _int("MASTER_PORT") is None:
        os.environ["MASTER_PORT"] = "29500"  # torchrun's own default
    if device.type == "cuda":
        available = torch.cuda.device_count()
        if local_rank() >= available:
            raise UserError(f"rank {local_rank()} of this machine has no GPU: there are {available}; lower --nproc_per_node")
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    _join(device)
    if not is_main():
        logging.getLogger().setLevel(logging.ERROR)
    yield device
    dist.destroy_process_group()  # not after an error: it would wait for ranks that wait for this one


def _join(device: torch.device) -> None:
    """Wait for all ranks and make their group; UserError where one does not come."""
    global _waiting
    number, wanted, seconds = _int("RANK"), _int("WORLD_SIZE"), START_TIMEOUT.total_seconds()
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=START_TIMEOUT))
        store.set(f"here/{number}", "")
        store.wait([f"here/{other}" for other in range(wanted)], START_TIMEOUT)
    except (RuntimeError, OSError) as error:  # of the store, which belongs to the first rank, or to torchrun
        raise UserError(
            f"not all {wanted} ranks were there within {seconds:g} s; see what the others printed, and that all "
            "are started with the same WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        ) from error
    is_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if is_cuda else "gloo", store=store, rank=number, world_size=wanted,
        timeout=STEP_TIMEOUT if is_cuda else WAIT_TIMEOUT, device_id=device if is_cuda else None,
    )  # fmt: skip
    # NCCL does not notice a rank that ended; gloo does at once, and nobody waits for a GPU while one rank downloads.
    _waiting = dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT) if is_cuda else dist.group.WORLD


@contextmanager
def _together() -> Iterator[None]:
    """UserError where another rank ended, or does not come, instead of doing what all do within this context."""
    try:
        yield
    except RuntimeError as error:  # of gloo: the connection is closed, or the time is over
        raise UserError(
            f"another rank ended, or did not come within {WAIT_TIMEOUT.total_seconds() / 60:g} minutes; see what it printed"
        ) from error


def rank() -> int:
    """Number of this rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Number of this rank among those of its machine, from 0.

    Where the launcher does not say, ranks fill the GPUs of one machine after another; without GPUs all are taken to be on one.
    """
    for variable in _LOCAL_RANK_VARIABLES:
        if (number := _int(variable)) is not None:
            return number
    rank, gpus = _int("RANK") or 0, torch.cuda.device_count()
    return rank % gpus if gpus else rank


def _int(variable: str) -> int | None:
    """Return the number in an environment variable, None where it is unset or empty."""
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise UserError(f"{variable} is {text!r}; the launcher must set it to a whole number, or unset it")
    return int(text) if text else None


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
    if not is_first:
        gather(None)  # waits for all
    yield
    if is_first:
        gather(None)


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a floating-point tensor over the ranks."""
    if dist.is_initialized():
        tensor = tensor.clone()
        with _together():
            dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def gather(value: Any) -> list[Any]:
    """Return the values of all ranks, by rank; they are pickled in between."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    with _together():
        dist.all_gather_object(values, value, group=_waiting)
    return values


def replicate(network: nn.Module) -> DistributedDataParallel:
    """Wrap a network for training: weights and buffers become those of the first rank, gradients the mean over the ranks."""
    for buffer in network.buffers():
        dist.broadcast(buffer, 0)
    # It compares strides also along axes of size 1, where they mean nothing: of 1x1 kernels stored channels last, for example.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # the other name is deprecated then
    return DistributedDataParallel(network, **{"forward_sync_buffers" if newer else "broadcast_buffers": False})
