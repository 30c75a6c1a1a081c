"""Processors and GPUs of this machine, and how tensors and algorithms get along with them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

MAX_WORKERS = 20  # that decode for one network: a GPU that trains on 3,000 clips of 10 s a second needs 18
# How many ranks a launcher started on this machine: torchrun's, Open MPI's, other MPIs'. SLURM gives each rank cores of its own.
_LOCAL_SIZE_VARIABLES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


def available_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loader_workers() -> int:
    """Return how many processes should decode for this one: its share, among the ranks of the machine, of the cores it may use."""
    sizes = [int(size) for name in _LOCAL_SIZE_VARIABLES if (size := os.environ.get(name, "")).isdecimal()]
    return max(1, min(MAX_WORKERS, available_cores() // max([1, *sizes])))


def pick_device(cuda: bool) -> torch.device:
    """Return the device to compute on; on a machine without CUDA, `--cuda` is the CPU, with a warning.

    With CUDA, float32 is float32 from here on: products and convolutions do not round their inputs to TF32.
    """
    import torch

    if not cuda:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        logger.warning("--cuda: this machine has no usable CUDA device; running on the CPU")
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


@contextmanager
def training_algorithms(device: torch.device, deterministic: bool) -> Iterator[None]:
    """On a GPU choose the algorithms of a training: the fastest for each shape, by trial, or those that repeat their bits.

    In the latter case an operation that has no such algorithm is a RuntimeError. On the CPU nothing changes.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS asks for
    before = torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_deterministic_debug_mode("error" if deterministic else before[1])
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.set_deterministic_debug_mode(before[1])


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to the device without waiting for it: to a GPU from pinned memory."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, such as copies to the CPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copied_ahead(batches: Iterable[T], copy: Callable[[T], tuple[U, list[torch.Tensor]]], device: torch.device) -> Iterator[U]:
    """Yield what `copy` makes of each batch; it returns that and the tensors that it copied to the device.

    On a GPU the next batch is copied, by a stream of its own, while the one that was yielded is computed on.
    """
    import torch

    batches = iter(batches)
    if device.type != "cuda":
        yield from (copy(batch)[0] for batch in batches)
        return
    copying = torch.cuda.Stream(device)

    def copy_next() -> list[tuple[U, list[torch.Tensor]]]:
        with torch.cuda.stream(copying):
            return [copy(batch) for batch in islice(batches, 1)]

    ahead = copy_next()
    while ahead:
        [(batch, tensors)] = ahead
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in tensors:
            tensor.record_stream(computing)  # its memory is not used again before the computation has ended
        ahead = copy_next()
        yield batch
