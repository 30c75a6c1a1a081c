"""Measured peak memory of activations: what PyTorch's allocator allocates and frees while a network runs on the CPU.

The events are the allocator's own (`torch.profiler` with `profile_memory`), not the size of the process, which keeps freed memory.
They cover the tensors that operations return and those inside an operation: workspaces, copies in another layout, oneDNN's too,
and in float16 the float32 copy that a mean makes. What kernels allocate inside depends on the processor: with float16 instructions
(AVX512-FP16) oneDNN's matrix product has a workspace. The events do not cover the weights, which are there before, and the
panels that the library of matrix products packs.
"""

from __future__ import annotations

import copy
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from helpers.costs.activation_memory import MemoryReport, MemoryRow, stage_of
from helpers.costs.macs import spectrogram_shape
from models import memory_efficient as chunked
from models.base import TaggingNetwork
from models.errors import UserError

DTYPES = {32: torch.float32, 16: torch.float16}  # by bits per element

Key = TypeVar("Key")


def measure_memory(
    network: TaggingNetwork,
    frames: int | None = None,
    *,
    bits_per_elem: int = 32,
    memory_efficient: bool = False,
    two_passes: bool = False,
) -> MemoryReport:
    """Run a copy of `network` on a spectrogram of `frames` frames (default: those of 10 seconds) and return its measured memory.

    The report has the form of `peak_memory`'s: a row for each block and for the head, with the peak while it ran. Blocks run one
    after the other, as in the network's forward pass; the spectrogram counts until the first has read it. Raises
    `ValueError` where `bits_per_elem` is not 32 or 16.
    """
    if bits_per_elem not in DTYPES:
        raise UserError(f"memory can be measured at 32 or 16 bits per element, not at {bits_per_elem}")
    dtype = DTYPES[bits_per_elem]
    network = chunked.memory_efficient(network, two_passes=two_passes) if memory_efficient else copy.deepcopy(network).eval()
    network.to(dtype)
    stages = dict(zip(_names(network, memory_efficient), network.stages, strict=True))

    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else the profiler warns of missing GPUs
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        x = torch.zeros(spectrogram_shape(network, frames), dtype=dtype)
        for name, stage in stages.items():
            with record_function(name):
                x = stage(x)
        with record_function("classifier"):
            network.forward_outputs(x)
    events = profiler.profiler.kineto_results.events()
    rows = [MemoryRow(name, name, {"in memory": size // dtype.itemsize}) for name, size in _peaks(events, [*stages, "classifier"])]
    return MemoryReport(tuple(rows), bits_per_elem, memory_efficient)


def compare_outputs(reference: TaggingNetwork, other: TaggingNetwork, x: Tensor) -> float:
    """Return the largest difference of two networks' outputs for `x`, in standard deviations of the reference's.

    Each network gets `x` in the type of its own weights.
    """
    with torch.inference_mode():
        outputs = [network(x.to(next(network.parameters()).dtype)) for network in (reference, other)]
        return max(((one - two).abs().max() / one.std()).item() for one, two in zip(*outputs, strict=True))


def inference_seconds(networks: Mapping[Key, TaggingNetwork], x: Tensor, rounds: int) -> dict[Key, float]:
    """Return each network's median time in seconds for `x`; the runs are interleaved, after a round to warm up."""
    inputs = {key: x.to(next(network.parameters()).dtype) for key, network in networks.items()}
    seconds: dict[Key, list[float]] = {key: [] for key in networks}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for key, network in networks.items():
                start = time.perf_counter()
                network(inputs[key])
                if number:
                    seconds[key].append(time.perf_counter() - start)
    return {key: median(times) for key, times in seconds.items()}


def _names(network: TaggingNetwork, memory_efficient: bool) -> list[str]:
    """Return the names of the network's stages as in `peak_memory`'s reports: memory-efficient, the first two are one."""
    if memory_efficient:
        return ["features.0 and features.1", *(f"features.{index + 1}" for index in range(1, len(network.features)))]
    names = {module: name for name, module in network.named_modules()}
    return [stage_of(names[stage]) for stage in network.stages]


def _peaks(events, names: list[str]) -> list[tuple[str, int]]:
    """Return the peak in bytes while each of the named parts ran."""
    spans = {event.name(): (event.start_ns(), event.end_ns()) for event in events if event.name() in names}
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    times = [when for when, _ in changes]
    live = [0, *accumulate(size for _, size in changes)]  # live[i]: before the change i
    return [(name, max(live[bisect_left(times, spans[name][0]) : bisect_right(times, spans[name][1]) + 1])) for name in names]
