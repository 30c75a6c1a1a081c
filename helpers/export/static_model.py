"""A model for clips of one length, written so that the runtimes of phones take all of it: what their exporters start from."""

from __future__ import annotations

import copy
import importlib.util
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from helpers.export.graph import check_network
from helpers.export.onnx_writer import describe
from helpers.export.static_front_end import StaticFrontEnd
from helpers.export.weights import MIN_VALUES, to_int8
from models.blocks import ConcurrentSE, ConvNormActivation, SqueezeExcitation
from models.errors import UserError, install_command
from models.network import MobileNetV3

CLIP_SECONDS = 10.0  # of the clips that a file takes, unless another length is asked for


class StaticModel(nn.Module):
    """A network behind its front end, in evaluation mode: waveform (1, samples) -> scores (1, K), embedding (1, C)."""

    def __init__(self, network: MobileNetV3, samples: int) -> None:
        super().__init__()
        self.front_end = StaticFrontEnd(network.mel, samples)
        self.network = StaticNetwork(network)
        self.samples = samples
        self.eval().requires_grad_(False)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(self.front_end(waveform))

    def example(self) -> Tensor:
        """Return a waveform to trace the model with."""
        return torch.zeros(1, self.samples)


class StaticNetwork(nn.Module):
    """A copy of a network: spectrogram (1, 1, n_mels, frames) -> scores (1, K), embedding (1, C).

    Batch norms are folded into convolutions. Means keep their axes and gates are 1x1 convolutions, as XNNPACK has them.
    """

    def __init__(self, network: MobileNetV3) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        for layer in list(network.features.modules()):
            if isinstance(layer, ConvNormActivation):
                layer[0], layer[1] = fuse_conv_bn_eval(layer[0], layer[1]), nn.Identity()
            for name, child in layer.named_children():
                if isinstance(child, ConcurrentSE) and network.arch.se_dims == "c":
                    setattr(layer, name, ChannelGate(child.conc_se_layers[0]))
        self.features, self.head = network.features, network.classifier
        self.pools_first = isinstance(self.head, nn.Sequential) and isinstance(self.head[0], nn.AdaptiveAvgPool2d)
        if self.pools_first:
            self.head = self.head[2:]
        self.single_label = network.single_label

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(spectrogram)
        embedding = features.mean((2, 3), keepdim=True).flatten(1)
        logits = self.head(embedding if self.pools_first else features)
        return logits.softmax(-1) if self.single_label else logits.sigmoid(), embedding

    def round_weights(self) -> None:
        """Round weights of `MIN_VALUES` values or more to 8 bits, each output channel to multiples of its own scale.

        Quantizers that take a channel's largest value for the scale find that scale, so they change nothing.
        """
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.numel() >= MIN_VALUES:
                values, scale, _ = to_int8(layer.weight.detach().flatten(1).numpy())  # as a matrix: no factors of columns
                layer.weight.copy_(torch.from_numpy(values * scale.astype(np.float32)).view_as(layer.weight))


class ChannelGate(nn.Module):
    """`SqueezeExcitation` over channels, whose linear layers are 1x1 convolutions: no change of shape."""

    def __init__(self, layer: SqueezeExcitation) -> None:
        super().__init__()
        self.squeeze, self.excite = pointwise(layer.fc1), pointwise(layer.fc2)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def pointwise(linear: nn.Linear) -> nn.Conv2d:
    """Return a linear layer as a 1x1 convolution."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
    conv.weight, conv.bias = nn.Parameter(linear.weight[:, :, None, None]), linear.bias
    return conv


def clip_samples(network: MobileNetV3, name: str, seconds: float) -> int:
    """Return the samples of clips of `seconds`; `UserError` where the network cannot be exported for them."""
    check_network(network, name)
    if network.arch.family == "fmn":
        raise UserError(f"{name} is a frame-wise network, which takes any length; export it with --format onnx")
    mel, arch = network.mel, network.arch
    samples = round(seconds * mel.sample_rate)
    if samples < mel.min_samples:
        raise UserError(f"clips of {seconds:g} s are too short; give at least {mel.min_samples / mel.sample_rate:.3f} s")
    frames = 1 + (samples - 1) // mel.hop_size
    if "t" in arch.se_dims and frames != arch.input_dim_t:
        raise UserError(
            f"{name} takes {arch.input_dim_t} frames, and clips of {seconds:g} s have {frames}; "
            f"give {arch.input_dim_t * mel.hop_size / mel.sample_rate:g} s"
        )
    return samples


def about(network: MobileNetV3, name: str, samples: int, weights: str) -> str:
    """Return what is said in the file about the model, as JSON: that of ONNX files, and the number of samples of a clip."""
    facts: dict[str, Any] = describe(network, name, network_only=False, weights=weights)
    return json.dumps(facts | {"samples": samples}, ensure_ascii=False)


def require(package: str, extra: str) -> None:
    """Raise `UserError` unless a package of requirements-`extra`.txt is installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is missing, which --format {extra} needs: {install_command(extra)}")
