"""Parameters and multiply-accumulate operations (MACs) of a network, in the convention of the published table.

Convolutions, linear and recurrent layers only (Schmid et al., ICASSP 2023, and the table of its release): an output element of a
convolution costs kernel area * in_channels / groups, one more where there is a bias; a linear layer costs its weights
and biases at every position it is applied at, and so does a GRU. Norms, activations, gates, means, the products of attention and
the log-mel front end are not counted; a report lists what it left out.

A dynamic convolution counts as an ordinary one of its size. Mixing its kernels is apart, `mixing_macs`: it does not depend on the
clip's length, and the published figures round to the same with it and without. The published parameters of the dynamic networks
are those here and the running means and variances of their norms, `norm_statistics`, which those of the others are without.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.base import TaggingNetwork
from models.config import DYMN_LIMITS, Architecture, DyMNArch, FrameWiseArch, MelConfig
from models.dynamic_blocks import DynamicConv
from models.ensemble import EnsembleModel
from models.errors import UserError
from models.waveform import WaveformModel

CLIP_SECONDS = 10  # length of an AudioSet clip, for which all published figures hold
COUNTED_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.GRU, DynamicConv)
SHAPE_KEEPING_LAYERS = (nn.BatchNorm2d, nn.Hardswish)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, TaggingNetwork, WaveformModel, EnsembleModel)  # no layers of their own


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer while a network ran: its dotted name, itself, and the shapes of its input and output."""

    name: str
    layer: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def type(self) -> str:
        return type(self.layer).__name__

    @property
    def params(self) -> int:
        """Without those of layers within this one, which have calls of their own."""
        return sum(parameter.numel() for parameter in self.layer.parameters(recurse=False))

    @property
    def macs(self) -> int:
        """Those of the whole output, all its positions and the batch included, for one of `COUNTED_LAYERS`."""
        outputs = torch.Size(self.output_shape).numel()
        if isinstance(self.layer, DynamicConv):
            return outputs * (self.layer.weight.shape[-1] // self.layer.out_channels)
        if isinstance(self.layer, nn.GRU):
            return outputs // self.output_shape[-1] * self.params
        weights = self.layer.weight[0].numel()  # of one output channel or feature: (in / groups, *kernel) or (in,)
        return outputs * (weights + (self.layer.bias is not None))

    @property
    def mixing_macs(self) -> int:
        """Multiply-adds for the kernels of a dynamic convolution, one for each example; 0 for other layers."""
        return self.output_shape[0] * self.layer.weight.numel() if isinstance(self.layer, DynamicConv) else 0


@dataclass(frozen=True)
class ComplexityReport:
    """The result of `count_macs`: a row for each call of a counted layer, and the size of the whole network.

    `params` counts all parameters, norms included, so it exceeds the sum of the rows. `uncounted` maps each type of
    module that adds nothing to the MACs to the number of its modules, in the network's order, mere containers aside.
    `norm_statistics` counts the running means and variances, which are no parameters.
    """

    layers: tuple[LayerCall, ...]
    params: int
    norm_statistics: int
    uncounted: dict[str, int]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def mixing_macs(self) -> int:
        return sum(layer.mixing_macs for layer in self.layers)


def count_macs(model: nn.Module, input_shape: Sequence[int] | None = None) -> ComplexityReport:
    """Count the parameters and MACs of `model` for one input of `input_shape`; the model itself computes nothing.

    A network's input is (B, 1, n_mels, frames). A `WaveformModel` or an ensemble takes (B, samples), from which each
    front end makes its own number of frames; an ensemble is the sum of its members. Without a shape the input is one
    clip of 10 seconds, for a bare network through the front end `network.mel`.
    """
    calls = [
        replace(call, name=prefix + call.name)
        for prefix, network, shape in _inputs(model, input_shape)
        for call in trace(network, shape, COUNTED_LAYERS)
    ]
    counted = {call.name for call in calls}
    rest = (module for name, module in model.named_modules() if name not in counted and not isinstance(module, CONTAINERS))
    uncounted = Counter(type(module).__name__ for module in rest)
    statistics = sum(2 * module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    return ComplexityReport(tuple(calls), parameter_count(model), statistics, dict(uncounted))


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trace(model: nn.Module, input_shape: Sequence[int], layer_types: tuple[type[nn.Module], ...]) -> list[LayerCall]:
    """Return the calls of layers of `layer_types`, in order, for an input of `input_shape`.

    A copy runs on the meta device, in evaluation mode: shapes without values, as fast at any width. Norms and activations, in
    which two thirds of the time would go, pass on what they are given.
    """
    model = copy.deepcopy(model).to("meta", torch.float32).eval()
    calls: list[LayerCall] = []
    names = {module: name for name, module in model.named_modules()}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(LayerCall(names[layer], layer, tuple(inputs[0].shape), tuple(output.shape)))

    for layer in names:
        if isinstance(layer, layer_types):
            layer.register_forward_hook(record)
        elif isinstance(layer, SHAPE_KEEPING_LAYERS):
            layer.forward = lambda x: x
    with torch.no_grad():
        model(torch.empty(tuple(input_shape), device="meta"))
    return calls


def meta_network(arch: Architecture, mel: MelConfig | None = None) -> TaggingNetwork:
    """Build a network on the meta device: all shapes, no memory, no weights: enough to count."""
    with torch.device("meta"):
        return arch.build(mel)


def spectrogram_shape(network: TaggingNetwork, frames: int | None = None) -> tuple[int, int, int, int]:
    """Return the shape of one spectrogram of so many frames (default: those of 10 seconds) for `network`."""
    return 1, 1, network.mel.n_mels, network.mel.frames(CLIP_SECONDS * network.mel.sample_rate) if frames is None else frames


def describe(arch: Architecture) -> str:
    """Return a name for a network that has none, such as "width 1.0, mlp head"."""
    parts = [arch.family] * (arch.family != "mn") + [f"width {arch.width_mult}", f"{arch.head_type.replace('_', ' ')} head"]
    parts += [f"se_dims {arch.se_dims}"] * (arch.se_dims != type(arch).se_dims)
    parts += [f"strides {' '.join(map(str, arch.strides))}"] * (arch.strides != type(arch).strides)
    if isinstance(arch, DyMNArch):
        parts += ["replace_se"] * (arch.use_dy_blocks == "replace_se")
        changed = (name for name in DYMN_LIMITS if name != "num_classes" and getattr(arch, name) != getattr(DyMNArch, name))
        parts += [f"{name} {getattr(arch, name)}" for name in changed]
        parts += [switch for switch in ("no_dyconv", "no_dyrelu", "no_ca") if getattr(arch, switch)]
    if isinstance(arch, FrameWiseArch) and arch.sequence_size:
        parts += [f"{arch.sequence_model} of size {arch.sequence_size}"]
    parts += ["reduced tail"] * arch.reduced_tail + ["dilated"] * arch.dilated
    return ", ".join(parts)


def _inputs(model: nn.Module, input_shape: Sequence[int] | None) -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """Yield the parts to run as (prefix of their layer names, module, input shape)."""
    if isinstance(model, EnsembleModel):
        for index, member in enumerate(model.members):
            for prefix, network, shape in _inputs(member, input_shape):
                yield f"members.{index}.{prefix}", network, shape
    elif isinstance(model, WaveformModel):
        mel = model.front_end.config
        batch, samples = input_shape or (1, CLIP_SECONDS * mel.sample_rate)
        yield "network.", model.network, (batch, 1, mel.n_mels, mel.frames(samples))
    elif input_shape is not None:
        yield "", model, tuple(input_shape)
    elif isinstance(model, TaggingNetwork):
        yield "", model, spectrogram_shape(model)
    else:
        raise UserError(f"a {type(model).__name__} has no front end that gives its input; pass input_shape")
