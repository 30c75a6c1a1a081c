from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.costs.activation_memory import peak_memory
from helpers.costs.measured_memory import compare_outputs, inference_seconds, measure_memory
from models.config import Arch
from models.memory_efficient import memory_efficient
from models.network import MobileNetV3

TINY = Arch(width_mult=0.1, num_classes=10)


def small_weights(arch: Arch) -> MobileNetV3:
    """A network without the time of a random initialisation: what it allocates does not depend on its weights."""
    with torch.device("meta"):
        network = MobileNetV3(arch)
    network = network.to_empty(device="cpu").eval()
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.fill_(0.01 if tensor.is_floating_point() else 0)
    return network


@pytest.mark.parametrize(
    ("width", "bits", "frames"),
    [
        (0.1, 32, 1000),
        (0.1, 16, 300),
        (0.4, 32, 1000),
        (0.4, 16, 300),
        (1.0, 32, 1000),
        (1.0, 16, 300),
        (2.0, 32, 300),
        (2.0, 16, 300),
    ],
)
def test_memory_efficient_inference_takes_what_the_analysis_says(width: float, bits: int, frames: int) -> None:
    network = small_weights(replace(TINY, width_mult=width))
    analytic = peak_memory(network, frames, bits_per_elem=bits, memory_efficient=True)
    measured = measure_memory(network, frames, bits_per_elem=bits, memory_efficient=True)
    assert measured.peak_kb == pytest.approx(analytic.peak_kb, rel=0.01)
    assert measured.peak.block == analytic.peak.block
    for name, row in analytic.blocks.items():  # a block without shortcut keeps its input, which the caller holds
        assert 0.99 * row.elements < measured.blocks[name].elements < 1.15 * row.elements + 20_000


@pytest.mark.parametrize("two_passes", [False, True])
def test_where_a_block_with_squeeze_and_excitation_is_the_peak(two_passes: bool) -> None:
    network = small_weights(replace(TINY, width_mult=0.4, strides=(2, 2, 1, 1)))
    analytic = peak_memory(network, 500, bits_per_elem=32, memory_efficient=True, two_passes=two_passes)
    measured = measure_memory(network, 500, memory_efficient=True, two_passes=two_passes)
    assert measured.peak_kb == pytest.approx(analytic.peak_kb, rel=0.01)


def test_the_plain_forward_pass_takes_more_than_its_figure() -> None:
    """Norms are no layers of their own in the convention, and work in place; they do not here."""
    network = small_weights(TINY)
    analytic, measured = peak_memory(network, bits_per_elem=32), measure_memory(network)
    assert list(measured.blocks) == [*analytic.blocks, "classifier"]
    assert measured.peak_kb > 1.3 * analytic.peak_kb
    assert measured.peak_kb > 2.5 * measure_memory(network, memory_efficient=True).peak_kb
    assert measured.blocks["features.0"].elements >= 128 * 1000 + 2 * 8 * 64 * 500


def test_what_an_operation_needs_inside_is_seen() -> None:
    """A convolution in float16 that unfolds its input: more than input and output."""

    network = small_weights(TINY)
    network.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False))
    network.classifier = nn.Identity()
    with_copies = measure_memory(network, 100, bits_per_elem=16).blocks["features.0"].elements
    network.features = nn.Sequential(nn.ReLU(inplace=True))
    assert measure_memory(network, 100, bits_per_elem=16).blocks["features.0"].elements == 128 * 100
    assert with_copies >= (1 + 8) * 128 * 100


def test_only_types_that_the_cpu_computes_in() -> None:
    with pytest.raises(ValueError, match="32 or 16"):
        measure_memory(small_weights(TINY), bits_per_elem=8)


def test_outputs_and_times_are_compared() -> None:
    torch.manual_seed(0)
    network = MobileNetV3(TINY).eval()
    x = torch.randn(1, 1, 128, 40)
    assert 0 < compare_outputs(network, memory_efficient(network), x) < 1e-5
    other = MobileNetV3(TINY).eval()
    assert compare_outputs(network, other, x) > 0.1
    seconds = inference_seconds({"plain": network, "half": memory_efficient(network).half()}, x, 2)
    assert list(seconds) == ["plain", "half"] and all(0 < value < 10 for value in seconds.values())
