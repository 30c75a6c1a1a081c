from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from helpers.costs.activation_memory import MemoryReport, MemoryRow, peak_memory
from helpers.costs.macs import meta_network
from models.config import Arch
from models.MobileNetV3 import get_model
from models.registry import PRETRAINED

# width, plain and memory-efficient peak in kB at 16 bits, 128 mels and 1000 frames: the reference's figures, except for
# the last one of width 0.1, where the reference fails
WIDTHS = [
    (0.1, 1536, 896),
    (0.2, 1536, 896),
    (0.4, 2048, 1008),
    (0.5, 2560, 1088),
    (1.0, 5120, 2048),
    (2.0, 10240, 4096),
    (3.0, 15360, 6144),
    (4.0, 20480, 8192),
]


@cache
def plain(arch: Arch, frames: int = 1000) -> MemoryReport:
    return peak_memory(arch, frames)


@cache
def efficient(arch: Arch, frames: int = 1000) -> MemoryReport:
    return peak_memory(arch, frames, memory_efficient=True)


@pytest.mark.parametrize(("width", "plain_kb", "efficient_kb"), WIDTHS)
def test_every_width_has_the_reference_peak(width: float, plain_kb: int, efficient_kb: int) -> None:
    arch = Arch(width_mult=width)
    assert (plain(arch).peak_kb, efficient(arch).peak_kb) == (plain_kb, efficient_kb)


def test_the_largest_layer_is_named() -> None:
    assert plain(Arch()).peak == MemoryRow("features.2.block.0.0", "features.2", {"input": 16 * 32000, "output": 64 * 32000})
    assert efficient(Arch()).peak.name == "features.2"
    assert efficient(Arch()).peak.tensors == {
        "input": 16 * 32000,
        "expanded chunk": 8 * 32000,
        "depthwise chunk": 8 * 8000,
        "output": 24 * 8000,
    }
    assert efficient(Arch(width_mult=0.2)).peak.name == "features.0 and features.1"


def test_a_shortcut_is_held_once_while_its_block_runs() -> None:
    rows = {row.name: row.tensors for row in plain(Arch()).rows}
    assert rows["features.5.block.0.0"] == {"input": 40 * 2000, "output": 120 * 2000}
    assert rows["features.5.block.1.0"] == {"input": 120 * 2000, "output": 120 * 2000, "shortcut": 40 * 2000}
    assert rows["features.5.block.3.0"] == {"input": 120 * 2000, "output": 40 * 2000, "shortcut": 40 * 2000}
    assert not any("shortcut" in rows[name] for name in rows if name.startswith(("features.4.", "features.16.")))


def test_squeeze_and_excitation_holds_the_expanded_tensor_whole() -> None:
    rows = {row.name: row.tensors for row in efficient(Arch()).rows}
    assert rows["features.5 projection"] == {
        "depthwise output": 120 * 2000,
        "output": 40 * 2000,
        "shortcut": 40 * 2000,
    }
    assert rows["features.4 up to squeeze-and-excitation"] == {
        "input": 24 * 8000,
        "expanded chunk": 9 * 8000,
        "depthwise output": 72 * 2000,
    }
    without = {row.name for row in efficient(Arch(se_dims="none")).rows}
    assert "features.5" in without and "features.5 projection" not in without


def test_a_block_that_does_not_expand_has_one_chunk() -> None:
    rows = {row.name: row.tensors for row in efficient(Arch(width_mult=0.1)).rows}
    assert rows["features.2"] == {"input": 8 * 32000, "depthwise chunk": 1 * 8000, "output": 8 * 8000}


@pytest.mark.parametrize(
    ("changes", "frames", "plain_kb", "efficient_kb"),
    [
        ({"input_dim_f": 64, "se_dims": "cft"}, 1000, 2560, 1024),  # half the positions
        ({"head_type": "multihead_attention_pooling"}, 2000, 10240, 4096),
        # blocks 14 and 15 at 16 x 125: 2 * 960 + 160 channels plain, 960 + 2 * 160 efficient
        ({"strides": (2, 2, 1, 1)}, 1000, 8320, 5120),
        # half of that in the tail, so block 12 leads: 2 * 672 + 112 plain, 672 + 2 * 112 efficient
        ({"strides": (2, 2, 1, 1), "reduced_tail": True}, 1000, 5824, 3584),
        # a dilated block 13 does not stride
        ({"strides": (2, 2, 1, 2), "dilated": True}, 1000, 8320, 5120),
    ],
)
def test_other_networks_and_inputs(changes: dict, frames: int, plain_kb: float, efficient_kb: float) -> None:
    arch = replace(Arch(), **changes)
    assert (plain(arch, frames).peak_kb, efficient(arch, frames).peak_kb) == (plain_kb, efficient_kb)


def test_a_convolutional_head_counts_as_any_convolution() -> None:
    entry = PRETRAINED["mn10_as_fc_s2211"]
    report = peak_memory(meta_network(entry.arch, entry.mel), memory_efficient=True)
    assert report.peak.name == "classifier.0"
    assert report.peak.elements == (960 + 527) * 16 * 125


def test_a_real_network_gives_the_same_report_and_stays_as_it_was() -> None:
    network = get_model(width_mult=0.1).train()
    assert peak_memory(network, memory_efficient=True) == efficient(network.arch)
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_the_rows_of_each_block() -> None:
    blocks = plain(Arch()).blocks
    assert list(blocks) == [f"features.{index}" for index in range(17)]
    assert blocks["features.2"].name == "features.2.block.0.0"
    assert blocks["features.5"].name == "features.5.block.1.0"
    efficient_blocks = efficient(Arch(head_type="fully_convolutional")).blocks
    assert list(efficient_blocks) == ["features.0 and features.1", *(f"features.{index}" for index in range(2, 17)), "classifier"]
    assert efficient_blocks["features.5"].name == "features.5 projection"


def test_two_passes_hold_chunks_only() -> None:
    """At strides 2 2 1 1 block 14 leads with 960 + 2 * 160 channels; in two passes the last convolution does, with 160 + 960."""
    arch = Arch(strides=(2, 2, 1, 1))
    report = peak_memory(arch, memory_efficient=True, two_passes=True)
    assert report.blocks["features.15"].elements == (160 + 120 + 120 + 160) * 16 * 125
    assert (report.peak.name, report.peak_kb) == ("features.16.0", 4480)
    assert peak_memory(Arch(), memory_efficient=True, two_passes=True).peak == efficient(Arch()).peak


def test_bits_scale_the_peak() -> None:
    assert [replace(plain(Arch()), bits_per_elem=bits).peak_kb for bits in (8, 16, 32)] == [2560, 5120, 10240]
    assert peak_memory(Arch(), bits_per_elem=32).peak_kb == 10240
    with pytest.raises(ValueError, match="bits_per_elem"):
        peak_memory(Arch(), bits_per_elem=0)
