"""Building blocks of MobileNetV3: convolution with norm, squeeze-and-excitation, inverted residual.

The order and names of submodules fix the names in the state dict, which released checkpoints depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.in_place import BatchNorm2d, DepthwiseConv2d, Hardswish, add, scale

AGGREGATIONS = {"max": torch.amax, "min": torch.amin, "avg": torch.mean, "add": torch.sum}  # of the layers of a `ConcurrentSE`
AXES = {"c": 1, "f": 2, "t": 3}  # letter of an axis -> its position in (B, C, F, T)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, at least `divisor` and never below 90 % of `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


def conv_out_size(size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Return the length of an axis after a convolution padded by (kernel - 1) // 2 * dilation."""
    padding = (kernel - 1) // 2 * dilation
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class ConvNormActivation(nn.Sequential):
    """A convolution without bias, BatchNorm2d(eps=0.001, momentum=0.01) and, if given, an activation.

    What the convolution and the norm return may be overwritten by the next layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int | tuple[int, int] = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = None,
    ) -> None:
        padding = (kernel - 1) // 2 * dilation
        convolution = DepthwiseConv2d if groups > 1 else nn.Conv2d
        layers: list[nn.Module] = [
            convolution(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False),
            BatchNorm2d(out_channels, eps=0.001, momentum=0.01),
        ]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)


class SqueezeExcitation(nn.Module):
    """Scale one axis of (B, C, F, T) by a gate computed from the mean over the other two (Hu et al., CVPR 2018).

    The released networks end the gate in a sigmoid, not in MobileNetV3's hard sigmoid.
    """

    def __init__(self, size: int, squeeze_size: int, axis: str) -> None:
        super().__init__()
        self.axis = axis
        self.fc1 = nn.Linear(size, squeeze_size)
        self.fc2 = nn.Linear(squeeze_size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated (B, C, F, T); the axis must have the size the layer was built for."""
        return self.excite(x, self.squeeze(x))

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> bottleneck (B, S) of numbers of at least 0: a summary of the whole input."""
        return self.bottleneck(x.mean([other for other in (1, 2, 3) if other != AXES[self.axis]]))

    def bottleneck(self, mean: Tensor) -> Tensor:
        """Means over the other axes (B, size) -> bottleneck (B, S)."""
        if mean.shape[1] != self.fc1.in_features:
            raise UserError(
                f"squeeze-and-excitation on axis {self.axis!r} was built for size {self.fc1.in_features}, got {mean.shape[1]}: "
                "input_dim_f must be the number of mel bands and input_dim_t the number of frames of every input"
            )
        return torch.relu(self.fc1(mean))

    def excite(self, x: Tensor, bottleneck: Tensor) -> Tensor:
        """Return (B, C, F, T) times the gate of a bottleneck (B, S)."""
        return x * self.gate(bottleneck)

    def gate(self, bottleneck: Tensor) -> Tensor:
        """Return the gate of a bottleneck (B, S), in the shape that scales (B, C, F, T): on axis c (B, C, 1, 1)."""
        gate = torch.sigmoid(self.fc2(bottleneck))
        return gate.view(gate.shape[0], *(-1 if other == AXES[self.axis] else 1 for other in (1, 2, 3)))


class ConcurrentSE(nn.Module):
    """Squeeze-and-excitation on several axes at once: all layers see the same input, their outputs are fused.

    A single layer may overwrite the input.
    """

    def __init__(self, sizes: dict[str, int], axes: str, aggregation: str, reduction: int) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.conc_se_layers = nn.ModuleList(
            SqueezeExcitation(sizes[axis], make_divisible(sizes[axis] // reduction), axis) for axis in axes
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(x, self.squeeze(x))

    def squeeze(self, x: Tensor) -> list[Tensor]:
        """Return the bottleneck of each layer, see `SqueezeExcitation.squeeze`."""
        return [layer.squeeze(x) for layer in self.conc_se_layers]

    def excite(self, x: Tensor, bottlenecks: Sequence[Tensor]) -> Tensor:
        """Scale x by the gates of the bottlenecks and fuse what comes out."""
        if len(bottlenecks) == 1:
            return scale(x, self.conc_se_layers[0].gate(bottlenecks[0]))
        return self.fuse([layer.excite(x, bottleneck) for layer, bottleneck in zip(self.conc_se_layers, bottlenecks, strict=True)])

    def fuse(self, outputs: list[Tensor]) -> Tensor:
        """Make one tensor of what the layers return, each (B, C, F, T)."""
        return AGGREGATIONS[self.aggregation](torch.stack(outputs), 0)


@dataclass(frozen=True)
class BlockConfig:
    """One row of MobileNetV3-Large's table, channel counts already scaled by the width multiplier.

    `stride` is a pair, along frequency and time, where the two differ.
    """

    in_channels: int
    kernel: int
    expanded_channels: int
    out_channels: int
    use_se: bool
    activation: type[nn.Module]
    stride: int | tuple[int, int]
    dilation: int = 1

    @property
    def depthwise_stride(self) -> int | tuple[int, int]:
        """Stride of the depthwise convolution: a dilated block does not stride."""
        return 1 if self.dilation > 1 else self.stride

    def out_size(self, size: int) -> int:
        """Return the length of an axis after the block."""
        return conv_out_size(size, self.kernel, self.depthwise_stride, self.dilation)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise convolution, squeeze-and-excitation, project (1x1); shortcut where shapes allow.

    The input stays as it is; what the layers in between return may be overwritten by the next one.
    `sizes` are the lengths of f and t after the depthwise convolution, for squeeze-and-excitation on those axes.
    """

    def __init__(self, config: BlockConfig, sizes: dict[str, int], se_dims: str, se_agg: str, se_r: int) -> None:
        super().__init__()
        expanded = config.expanded_channels
        self.use_shortcut = config.stride == 1 and config.in_channels == config.out_channels
        layers: list[nn.Module] = []
        if expanded != config.in_channels:
            layers.append(ConvNormActivation(config.in_channels, expanded, activation=config.activation))
        layers.append(
            ConvNormActivation(
                expanded,
                expanded,
                config.kernel,
                config.depthwise_stride,
                config.dilation,
                groups=expanded,
                activation=config.activation,
            )
        )
        if config.use_se and se_dims != "none":
            layers.append(ConcurrentSE({"c": expanded, **sizes}, se_dims, se_agg, se_r))
        layers.append(ConvNormActivation(expanded, config.out_channels))
        self.block = nn.Sequential(*layers)

    @property
    def squeeze_excitation(self) -> ConcurrentSE | None:
        return next((layer for layer in self.block if isinstance(layer, ConcurrentSE)), None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, F, T) -> (B, out, F', T')."""
        y = self.block(x)
        return add(y, x) if self.use_shortcut else y

    def forward_with_bottlenecks(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what `forward` does, and the bottleneck (B, S) of each layer of squeeze-and-excitation."""
        y, bottlenecks = x, []
        for layer in self.block:
            if isinstance(layer, ConcurrentSE):
                bottlenecks = layer.squeeze(y)
                y = layer.excite(y, bottlenecks)
            else:
                y = layer(y)
        return add(y, x) if self.use_shortcut else y, bottlenecks


def large_block_configs(
    width_mult: float, strides: Sequence[int], reduced_tail: bool = False, dilated: bool = False
) -> list[BlockConfig]:
    """Return the 15 inverted residuals of MobileNetV3-Large (Howard et al., ICCV 2019, Table 1)."""
    relu, hardswish = nn.ReLU, Hardswish
    tail = 2 if reduced_tail else 1
    dilation = 2 if dilated else 1
    rows = [
        # in, kernel, expanded, out, SE, activation, stride, dilation
        (16, 3, 16, 16, False, relu, 1, 1),
        (16, 3, 64, 24, False, relu, strides[0], 1),
        (24, 3, 72, 24, False, relu, 1, 1),
        (24, 5, 72, 40, True, relu, strides[1], 1),
        (40, 5, 120, 40, True, relu, 1, 1),
        (40, 5, 120, 40, True, relu, 1, 1),
        (40, 3, 240, 80, False, hardswish, strides[2], 1),
        (80, 3, 200, 80, False, hardswish, 1, 1),
        (80, 3, 184, 80, False, hardswish, 1, 1),
        (80, 3, 184, 80, False, hardswish, 1, 1),
        (80, 3, 480, 112, True, hardswish, 1, 1),
        (112, 3, 672, 112, True, hardswish, 1, 1),
        (112, 5, 672, 160 // tail, True, hardswish, strides[3], dilation),
        (160 // tail, 5, 960 // tail, 160 // tail, True, hardswish, 1, dilation),
        (160 // tail, 5, 960 // tail, 160 // tail, True, hardswish, 1, dilation),
    ]

    def channels(count: int) -> int:
        return make_divisible(count * width_mult)

    return [
        BlockConfig(channels(i), kernel, channels(e), channels(o), se, activation, stride, dil)
        for i, kernel, e, o, se, activation, stride, dil in rows
    ]
