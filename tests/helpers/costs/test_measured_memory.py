"""Two questions, kept apart: which tensors does our code hold (the same on any processor), and what does the allocator report?

What a kernel needs inside (workspaces, copies in another layout) depends on the processor and is asserted from one side only.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.costs.activation_memory import peak_memory
from helpers.costs.macs import spectrogram_shape
from helpers.costs.measured_memory import compare_outputs, inference_seconds, measure_memory
from models.config import Arch
from models.memory_efficient import memory_efficient
from models.network import MobileNetV3

TINY = Arch(width_mult=0.1, num_classes=10)
FRAMES = 100


def constant_network(arch: Arch) -> MobileNetV3:
    """A network without the time of a random initialisation: what it allocates does not depend on its weights."""
    with torch.device("meta"):
        network = MobileNetV3(arch)
    network = network.to_empty(device="cpu").eval()
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.fill_(0.01 if tensor.is_floating_point() else 0)
    return network


class HeldTensors(TorchDispatchMode):
    """Counts the elements of the tensors that are alive at once, those of `network` aside; `peak` may be reset."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
        self.elements: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.weights:
                storage = tensor.untyped_storage()
                self.elements[StorageWeakRef(storage)] = storage.nbytes() // tensor.element_size()
        self.elements = {storage: size for storage, size in self.elements.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self.elements.values()))
        return result


@pytest.mark.parametrize(
    ("width", "strides", "two_passes", "dtype"),
    [
        (0.1, (2, 2, 2, 2), False, torch.float32),
        (1.0, (2, 2, 2, 2), False, torch.float16),
        (0.4, (2, 2, 1, 1), False, torch.float32),  # a block with squeeze-and-excitation is the peak
        (0.4, (2, 2, 1, 1), True, torch.float16),
    ],
)
def test_memory_efficient_inference_holds_the_tensors_of_the_analysis(
    width: float, strides: tuple, two_passes: bool, dtype: torch.dtype
) -> None:
    network = constant_network(replace(TINY, width_mult=width, strides=strides))
    analytic = peak_memory(network, FRAMES, memory_efficient=True, two_passes=two_passes)
    execution = memory_efficient(network, two_passes=two_passes).to(dtype)
    inputs, peaks = [], []
    with torch.no_grad(), HeldTensors(execution) as held:
        x = torch.zeros(spectrogram_shape(network, FRAMES), dtype=dtype)
        for stage in execution.features:
            held.peak = 0
            inputs.append(x.numel())
            x = stage(x)
            peaks.append(held.peak)
    few = 2 * network.embedding_size  # means and gates of squeeze-and-excitation
    assert analytic.peak.elements <= max(peaks) <= analytic.peak.elements + few
    for peak, block, size in zip(peaks, analytic.blocks, inputs, strict=True):
        rows = [row for row in analytic.rows if row.block == block]
        kept = [row.elements + (0 if row.tensors.keys() & {"input", "shortcut"} else size) for row in rows]  # by the caller, here
        assert max(row.elements for row in rows) <= peak <= max(kept) + few


@pytest.mark.parametrize("bits", [32, 16])
def test_the_report_has_at_least_the_tensors_of_the_analysis(bits: int) -> None:
    network = constant_network(TINY)
    analytic = peak_memory(network, FRAMES, bits_per_elem=bits, memory_efficient=True)
    measured = measure_memory(network, FRAMES, bits_per_elem=bits, memory_efficient=True)
    assert list(measured.blocks) == [*analytic.blocks, "classifier"] and measured.bits_per_elem == bits
    assert analytic.peak_kb <= measured.peak_kb
    for name, row in analytic.blocks.items():
        assert row.elements <= measured.blocks[name].elements


def test_the_plain_forward_pass_takes_no_less_than_its_figure() -> None:
    """How much more is up to the processor, whose convolutions may copy their input into another layout."""
    network = constant_network(TINY)
    analytic, measured = peak_memory(network, bits_per_elem=32), measure_memory(network)
    assert list(measured.blocks) == [*analytic.blocks, "classifier"]
    assert measured.peak_kb >= analytic.peak_kb
    assert measured.blocks["features.0"].elements >= 128 * 1000 + 2 * 8 * 64 * 500


class Copies(nn.Module):
    """Holds `count` copies of its input at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return [x.clone() for _ in range(self.count)][0]


@pytest.mark.parametrize("bits", [32, 16])
def test_allocations_are_counted_to_the_element(bits: int) -> None:
    network = constant_network(TINY)
    network.features = nn.Sequential(nn.ReLU(inplace=True), Copies(3), nn.Identity())
    network.classifier = nn.Identity()
    blocks = measure_memory(network, FRAMES, bits_per_elem=bits).blocks
    size = 128 * FRAMES
    assert [blocks[f"features.{index}"].elements for index in range(3)] == [size, 4 * size, size]


def test_only_types_that_the_cpu_computes_in() -> None:
    with pytest.raises(ValueError, match="32 or 16"):
        measure_memory(constant_network(TINY), bits_per_elem=8)


def test_outputs_and_times_are_compared() -> None:
    torch.manual_seed(0)
    network = MobileNetV3(TINY).eval()
    x = torch.randn(1, 1, 128, 40)
    assert 0 < compare_outputs(network, memory_efficient(network), x) < 1e-5
    other = MobileNetV3(TINY).eval()
    assert compare_outputs(network, other, x) > 0.1
    seconds = inference_seconds({"plain": network, "half": memory_efficient(network).half()}, x, 2)
    assert list(seconds) == ["plain", "half"] and all(0 < value < 10 for value in seconds.values())
