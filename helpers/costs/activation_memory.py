"""Peak memory of the activations during inference of one clip, plain or memory-efficient.

The convention of the published figures (after Sandler et al., MobileNetV2, CVPR 2018, and Lin et al., MCUNetV2, NeurIPS
2021): while a layer runs, its input and its output are in memory and its weights stream in; norms, activations and
squeeze-and-excitation work in place; the network's figure is the largest of its layers, for batch 1. Linear layers and
what dynamic blocks compute their context with are negligible and left out.

Plain: every convolution is a layer. While a block with a shortcut runs, the block's input is kept as well (once: the first
convolution of the block reads that very tensor).

Memory-efficient: a block is computed in 8 chunks of its expanded channels. Each chunk is expanded, convolved depthwise,
projected and added to the block's output. With `in`, `expanded` and `out` channels, P positions in front of
the depthwise convolution and Q behind it, the elements in memory are:

    stem and first block, fused  input spectrogram + P * expanded/8 + Q * expanded/8 + Q * out
    block without SE             P * in            + P * expanded/8 + Q * expanded/8 + Q * out
    block with SE, depthwise     P * in            + P * expanded/8 + Q * expanded
    block with SE, projection    P * in (shortcut) + Q * expanded   + Q * out
    block with SE, two passes    as a block without SE
    any other convolution        its input + its output

- The first block has no expansion: its chunks are those of the stem's output, which is never whole in memory, and its
  shortcut is added chunk by chunk. In other blocks without SE the shortcut is the input, which is in memory anyway.
- SE needs means over the whole tensor, so all of the depthwise convolution's output must be there before the
  projection. The projection is the peak wherever an SE block is the network's peak (checked over strides, widths and
  input sizes). In two passes each chunk is computed twice, for the means and to be gated: not in the published figures, and
  of no use at strides 2 2 2 2, where no SE block is the peak.
- Numbers of channels are multiples of 8. A block that does not expand has no chunk in front of the depthwise
  convolution, which reads the block's input. This happens at width 0.1, where the reference fails: 896 kB here, as at
  width 0.2.

At width 1 and 1000 frames the peak is in block 2 (16 channels at 64 x 500, expanded to 64, then 24 at 32 x 250), at
2 bytes per element: plain (16 + 64) * 32000 = 2.56 M elements = 5120 kB, memory-efficient
(16 + 8) * 32000 + (8 + 24) * 8000 = 1.024 M elements = 2048 kB.

`models.memory_efficient` computes like this, and `helpers.costs.measured_memory` measures it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from helpers.costs.macs import LayerCall, meta_network, spectrogram_shape, trace
from models.base import TaggingNetwork
from models.blocks import ConcurrentSE, InvertedResidual
from models.config import Architecture
from models.dynamic_blocks import DynamicBlock, DynamicConv
from models.errors import UserError
from models.memory_efficient import CHANNEL_CHUNKS, check_family

CONVOLUTIONS = (nn.Conv2d, DynamicConv)


@dataclass(frozen=True)
class MemoryRow:
    """The tensors in memory while the named layer of a block runs, with their numbers of elements."""

    name: str
    block: str
    tensors: dict[str, int]

    @property
    def elements(self) -> int:
        return sum(self.tensors.values())


@dataclass(frozen=True)
class MemoryReport:
    """Rows in the order of execution; kB are 1000 bytes."""

    rows: tuple[MemoryRow, ...]
    bits_per_elem: int
    memory_efficient: bool

    @property
    def peak(self) -> MemoryRow:
        """The row that needs the most memory, the first of equals."""
        return max(self.rows, key=lambda row: row.elements)

    @property
    def peak_kb(self) -> float:
        return self.kilobytes(self.peak.elements)

    @property
    def blocks(self) -> dict[str, MemoryRow]:
        """The row of each block that needs the most memory, the first of equals."""
        largest: dict[str, MemoryRow] = {}
        for row in self.rows:
            largest[row.block] = max(largest.get(row.block, row), row, key=lambda one: one.elements)
        return largest

    def kilobytes(self, elements: int) -> float:
        """Return the size in kB (1000 bytes) of so many elements."""
        return elements * self.bits_per_elem / 8 / 1000


def peak_memory(
    network: TaggingNetwork | Architecture,
    frames: int | None = None,
    *,
    bits_per_elem: int = 16,
    memory_efficient: bool = False,
    two_passes: bool = False,
    calls: Sequence[LayerCall] | None = None,
) -> MemoryReport:
    """Return the activation memory of `network` for a spectrogram of `frames` frames (default: those of 10 seconds).

    All shapes come from running the network on the meta device; its front end gives the number of mel bands. `two_passes`
    applies to memory-efficient inference, which is for the family MobileNetV3 alone. `calls` are those of an earlier `trace`, the
    convolutions among them, which then is not repeated.
    """
    if bits_per_elem < 1:
        raise UserError(f"bits_per_elem must be at least 1, not {bits_per_elem}")
    if isinstance(network, Architecture):
        network = meta_network(network)
    if memory_efficient:
        check_family(network)
    if calls is None:
        calls = trace(network, spectrogram_shape(network, frames), CONVOLUTIONS)
    by_name = {call.name: call for call in calls if isinstance(call.layer, CONVOLUTIONS) and ".context_gen." not in call.name}
    rows = _chunked_rows(network, by_name, two_passes) if memory_efficient else _plain_rows(network, by_name)
    return MemoryReport(tuple(rows), bits_per_elem, memory_efficient)


def _plain_rows(network: TaggingNetwork, calls: dict[str, LayerCall]) -> Iterator[MemoryRow]:
    shortcut_inputs = {}  # name of a convolution -> size of the shortcut held while it runs
    for name, block in _blocks(network):
        if block.use_shortcut:
            first, *others = _within(name, calls)
            shortcut_inputs |= {call.name: _inputs(first) for call in others}
    for name, call in calls.items():
        shortcut = {"shortcut": shortcut_inputs[name]} if name in shortcut_inputs else {}
        yield MemoryRow(name, stage_of(name), {"input": _inputs(call), "output": _outputs(call)} | shortcut)


def _chunked_rows(network: TaggingNetwork, calls: dict[str, LayerCall], two_passes: bool) -> Iterator[MemoryRow]:
    """Yield a row for stem and first block, one or two for each other block, one for each convolution behind them."""
    remaining = dict(calls)
    stem = remaining.pop(next(iter(calls)))
    for index, (name, block) in enumerate(_blocks(network)):
        convolutions = _within(name, calls)
        for call in convolutions:
            del remaining[call.name]
        if index == 0:
            name, convolutions = f"{stage_of(stem.name)} and {name}", [stem, *convolutions]
        *expansion, depthwise, projection = convolutions
        start = {"input": _inputs(convolutions[0])}
        if expansion:
            start["expanded chunk"] = _chunk(expansion[-1])
        output = {"output": _outputs(projection)}
        if not two_passes and any(isinstance(module, ConcurrentSE) for module in block.modules()):
            whole = {"depthwise output": _outputs(depthwise)}
            shortcut = {"shortcut": start["input"]} if block.use_shortcut else {}
            yield MemoryRow(f"{name} up to squeeze-and-excitation", name, start | whole)
            yield MemoryRow(f"{name} projection", name, whole | output | shortcut)
        else:
            yield MemoryRow(name, name, start | {"depthwise chunk": _chunk(depthwise)} | output)
    for call in remaining.values():
        yield MemoryRow(call.name, stage_of(call.name), {"input": _inputs(call), "output": _outputs(call)})


def _blocks(network: TaggingNetwork) -> list[tuple[str, InvertedResidual | DynamicBlock]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, (InvertedResidual, DynamicBlock))]


def _within(block_name: str, calls: dict[str, LayerCall]) -> list[LayerCall]:
    """Return the convolutions of a block: [expansion,] depthwise, projection."""
    return [call for name, call in calls.items() if name.startswith(f"{block_name}.")]


def stage_of(name: str) -> str:
    """Return the part of the network that a layer belongs to: a stage such as "features.3" or "layers.2", or the classifier."""
    stage = re.search(r"(^|\.)((features|layers)\.\d+)", name)
    return stage.group(2) if stage else name.partition(".")[0]


def _inputs(call: LayerCall) -> int:
    return torch.Size(call.input_shape).numel()


def _outputs(call: LayerCall) -> int:
    return torch.Size(call.output_shape).numel()


def _chunk(call: LayerCall) -> int:
    """Return the size of one of 8 chunks of the output's channels, whose number is a multiple of 8."""
    return _outputs(call) // CHANNEL_CHUNKS
