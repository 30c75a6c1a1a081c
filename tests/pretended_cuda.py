"""A CUDA device that is not there: what a profiler would show of operations, copies and waits, counted on any machine.

Tensors on the pretended device are tensors of the CPU that say that they are on "cuda": values are real, and an operation between
them and a tensor of the CPU fails as on a GPU. Autocast does nothing. Each call into ATen counts as one operation: one of
`torch._foreach_*` or of a fused optimizer is a few kernels on a GPU. Views are not counted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda")
WAITING = ("nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors")
MIXING = ("copy_", "index", "index_put_")  # operations that take tensors of both devices


@dataclass
class Counts:
    """What was done on the device, or on the way to it."""

    operations: Counter[str] = field(default_factory=Counter)
    pageable_copies: int = 0  # to the device, from memory that is not pinned, or by a call that waits
    pinned_copies: int = 0
    waits: Counter[str] = field(default_factory=Counter)  # of the processor for the device


class _Memory:
    """Which memory is the device's, and which is pinned; all of it is kept, so that no address is used again."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, torch.UntypedStorage]] = {"device": {}, "pinned": {}}

    def add(self, kind: str, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._kept[kind][storage._cdata] = storage
        return tensor

    def has(self, kind: str, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._kept[kind]


class _Functions(TorchFunctionMode):
    """Moves tensors to and from the device, makes them there, and says where they are."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations, self.memory, self.counts = operations, operations.memory, operations.counts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function == Tensor.device.__get__:
            return CUDA if self.memory.has("device", args[0]) else function(*args)
        if function == Tensor.is_cuda.__get__:
            return self.memory.has("device", args[0])
        if function in (torch.device, torch._C._nn._parse_to):
            return function(*args, **kwargs)
        if function is Tensor.__deepcopy__:
            copy = function(*args, **kwargs)
            return self.memory.add("device", copy) if self.memory.has("device", args[0]) else copy
        if function is Tensor.pin_memory:
            return self.memory.add("pinned", args[0].clone())
        if function in (Tensor.to, Tensor.cpu):
            return self._to(function, *args, **kwargs)
        if function in (Tensor.numpy, Tensor.tolist) and self.memory.has("device", args[0]):
            if function is Tensor.numpy:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            self.counts.waits["tolist"] += 1
        if not any(_is_cuda(value) for value in _leaves((args, kwargs))):
            return function(*args, **kwargs)
        if function in (torch.tensor, torch.as_tensor):
            self.counts.pageable_copies += 1
        args, kwargs = tree_map(lambda value: torch.device("cpu") if _is_cuda(value) else value, (args, kwargs))
        self.operations.making += 1
        try:
            return function(*args, **kwargs)
        finally:
            self.operations.making -= 1

    def _to(self, function: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if function is Tensor.cpu:
            args = ("cpu",)
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        options = {} if layout is None else {"memory_format": layout}
        was_there = self.memory.has("device", tensor)
        if device is None or (device.type == "cuda") == was_there:
            return tensor.to(dtype=dtype or tensor.dtype, copy=copy, **options)
        if was_there:
            self.counts.waits["copy to the CPU"] += not non_blocking
            with torch.utils._python_dispatch._disable_current_modes():
                return tensor.detach().to(dtype or tensor.dtype, copy=True, **options)
        is_pinned = self.memory.has("pinned", tensor)
        self.counts.pinned_copies += is_pinned and non_blocking
        self.counts.pageable_copies += not (is_pinned and non_blocking)
        return self.memory.add("device", tensor.to(dtype or tensor.dtype, copy=True, **options))


class _Operations(TorchDispatchMode):
    """Counts operations; their results are on the device if what they are made of is."""

    def __init__(self, memory: _Memory, counts: Counts) -> None:
        super().__init__()
        self.memory, self.counts = memory, counts
        self.making = 0  # above 0 where new tensors are to be on the device

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in _leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [self.memory.has("device", tensor) for tensor in tensors]
        result = function(*args, **(kwargs or {}))
        if not any(there) and not self.making:
            return result
        name = function.overloadpacket.__name__
        is_mixed = any(there) and any(tensor.ndim for tensor, here in zip(tensors, there, strict=True) if not here)
        if is_mixed and name not in MIXING:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")
        if name == "_local_scalar_dense":
            self.counts.waits["item"] += 1
            return result
        if name == "copy_" and not all(there):
            is_pinned, non_blocking = self.memory.has("pinned", args[1]), len(args) > 2 and args[2]
            self.counts.waits["copy to the CPU"] += not there[0]
            self.counts.pinned_copies += there[0] and is_pinned and non_blocking
            self.counts.pageable_copies += there[0] and not (is_pinned and non_blocking)
        if name in WAITING or (name in ("index", "index_put_") and any(one.dtype == torch.bool for one in tensors[1:])):
            self.counts.waits[name] += 1
        if not function.is_view:
            self.counts.operations[name] += 1
        for value in _leaves(result):
            if isinstance(value, Tensor):
                self.memory.add("device", value)
        return result


def _leaves(value: object) -> Iterator[object]:
    """What is in lists, tuples and dicts, as `torch.utils._pytree.tree_leaves`, which takes several times as long."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    else:
        yield value


def _is_cuda(value: object) -> bool:
    return isinstance(value, (str, torch.device)) and str(value).partition(":")[0] == "cuda"


class _Stream:
    def __init__(self, *args: object, **options: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass

    def record_event(self, *args: object) -> None:
        pass


class PretendedCuda:
    """What the fixture `pretended_cuda` of a test gives: within `counting` the device is there."""

    def __init__(self) -> None:
        self._memory = _Memory()
        self._counts = Counts()

    def synchronize(self, device: object = None) -> None:
        self._counts.waits["synchronize"] += 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counts]:
        self._counts = counts = Counts()
        operations = _Operations(self._memory, counts)
        with torch.autograd.set_multithreading_enabled(False), _Functions(operations), operations:
            yield counts


@pytest.fixture
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> PretendedCuda:
    pretended = PretendedCuda()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", pretended.synchronize)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr("torch.utils._foreach_utils._get_foreach_kernels_supported_devices", lambda: ["cuda", "cpu"])
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # of several releases of torch
        monkeypatch.setattr(torch.optim.Optimizer, name, lambda optimizer: None, raising=False)
    return pretended
