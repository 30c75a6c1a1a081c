"""Parameters and multiply-accumulate operations (MACs) of a network, in the convention of the published table.

Convolutions and linear layers only (Schmid et al., ICASSP 2023, and the table of its release): an output element of a
convolution costs kernel area * in_channels / groups, one more where there is a bias; a linear layer costs its weights
and biases at every position it is applied at. Norms, activations, gates, means and the log-mel front end are not
counted; a report lists what it left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.config import Arch, MelConfig
from models.ensemble import EnsembleModel
from models.errors import UserError
from models.network import MobileNetV3
from models.waveform import WaveformModel

CLIP_SECONDS = 10  # length of an AudioSet clip, for which all published figures hold
COUNTED_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
CONTAINERS = (nn.Sequential, nn.ModuleList, MobileNetV3, WaveformModel, EnsembleModel)  # no layers of their own


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer while a network ran: its dotted name, itself, and the shapes of its input and output."""

    name: str
    layer: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerCount:
    """One counted layer; `macs` is for the whole output, all its positions and the batch included."""

    name: str
    type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class ComplexityReport:
    """The result of `count_macs`: a row for each call of a counted layer, and the size of the whole network.

    `params` counts all parameters, norms included, so it exceeds the sum of the rows. `uncounted` maps each type of
    module that adds nothing to the MACs to the number of its modules, in the network's order, mere containers aside.
    """

    layers: tuple[LayerCount, ...]
    params: int
    uncounted: dict[str, int]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


def count_macs(model: nn.Module, input_shape: Sequence[int] | None = None) -> ComplexityReport:
    """Count the parameters and MACs of `model` for one input of `input_shape`; the model itself computes nothing.

    A network's input is (B, 1, n_mels, frames). A `WaveformModel` or an ensemble takes (B, samples), from which each
    front end makes its own number of frames; an ensemble is the sum of its members. Without a shape the input is one
    clip of 10 seconds, for a bare network through the front end `network.mel`.
    """
    calls: list[LayerCall] = []
    for prefix, network, shape in _inputs(model, input_shape):
        calls += [
            LayerCall(prefix + call.name, call.layer, call.input_shape, call.output_shape)
            for call in trace(network, shape, COUNTED_LAYERS)
        ]
    counted = {id(call.layer) for call in calls}
    rest = (module for module in model.modules() if id(module) not in counted and not isinstance(module, CONTAINERS))
    uncounted = Counter(type(module).__name__ for module in rest)
    return ComplexityReport(count_layers(calls), parameter_count(model), dict(uncounted))


def count_layers(calls: Sequence[LayerCall]) -> tuple[LayerCount, ...]:
    """Return a row for each call of a counted layer."""
    rows = []
    for call in calls:
        kind, params = type(call.layer).__name__, parameter_count(call.layer)
        rows.append(LayerCount(call.name, kind, call.input_shape, call.output_shape, params, _layer_macs(call)))
    return tuple(rows)


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trace(model: nn.Module, input_shape: Sequence[int], layer_types: tuple[type[nn.Module], ...]) -> list[LayerCall]:
    """Return the calls of layers of `layer_types`, in order, for an input of `input_shape`.

    Runs on the meta device, in evaluation mode: shapes without values, as fast at any width. Weights, running
    statistics, device and mode of `model` stay as they are, and no hook is left behind, whatever happens.
    """
    state = {
        name: tensor.to("meta", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    with _evaluation_mode(model), _recorded(model, layer_types) as calls, torch.no_grad():
        torch.func.functional_call(model, state, torch.empty(tuple(input_shape), device="meta"))
    return calls


def meta_network(arch: Arch, mel: MelConfig | None = None) -> MobileNetV3:
    """Build a network on the meta device: all shapes, no memory, no weights: enough to count."""
    with torch.device("meta"):
        return MobileNetV3(arch, mel)


def clip_frames(mel: MelConfig) -> int:
    """Return the number of spectrogram frames of a clip of 10 seconds."""
    return mel.frames(CLIP_SECONDS * mel.sample_rate)


def spectrogram_shape(network: MobileNetV3, frames: int | None = None) -> tuple[int, int, int, int]:
    """Return the shape of one spectrogram of so many frames (default: those of 10 seconds) for `network`."""
    return 1, 1, network.mel.n_mels, clip_frames(network.mel) if frames is None else frames


def describe(arch: Arch) -> str:
    """Return a name for a network that has none, such as "width 1.0, mlp head"."""
    parts = [f"width {arch.width_mult}", f"{arch.head_type.replace('_', ' ')} head"]
    parts += [f"se_dims {arch.se_dims}"] * (arch.se_dims != "c")
    parts += [f"strides {' '.join(map(str, arch.strides))}"] * (arch.strides != (2, 2, 2, 2))
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
    elif isinstance(model, MobileNetV3):
        yield "", model, spectrogram_shape(model)
    else:
        raise UserError(f"a {type(model).__name__} has no front end that gives its input; pass input_shape")


def _layer_macs(call: LayerCall) -> int:
    # the weights of one output channel or feature: (in / groups, *kernel) or (in,)
    weights = call.layer.weight[0].numel()
    return torch.Size(call.output_shape).numel() * (weights + (call.layer.bias is not None))


@contextmanager
def _recorded(model: nn.Module, layer_types: tuple[type[nn.Module], ...]) -> Iterator[list[LayerCall]]:
    """Collect the calls of the layers of `model` while the context lasts."""
    calls: list[LayerCall] = []
    names = {module: name for name, module in model.named_modules()}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(LayerCall(names[layer], layer, tuple(inputs[0].shape), tuple(output.shape)))

    hooks = [layer.register_forward_hook(record) for layer in names if isinstance(layer, layer_types)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch every module to evaluation, then each back to its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
