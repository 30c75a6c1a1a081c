"""Building blocks against formulas written a second time, in numpy or by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.blocks import (
    ConcurrentSE,
    InvertedResidual,
    SqueezeExcitation,
    conv_out_size,
    large_block_configs,
    make_divisible,
)
from models.in_place import Hardswish

# Howard et al., ICCV 2019, Table 1 (Large): in, kernel, expanded, out, SE, stride
TABLE = [
    (16, 3, 16, 16, False, 1),
    (16, 3, 64, 24, False, 2),
    (24, 3, 72, 24, False, 1),
    (24, 5, 72, 40, True, 2),
    (40, 5, 120, 40, True, 1),
    (40, 5, 120, 40, True, 1),
    (40, 3, 240, 80, False, 2),
    (80, 3, 200, 80, False, 1),
    (80, 3, 184, 80, False, 1),
    (80, 3, 184, 80, False, 1),
    (80, 3, 480, 112, True, 1),
    (112, 3, 672, 112, True, 1),
    (112, 5, 672, 160, True, 2),
    (160, 5, 960, 160, True, 1),
    (160, 5, 960, 160, True, 1),
]


@pytest.mark.parametrize("divisor", [4, 8])
def test_make_divisible_keeps_its_promises(divisor):
    for value in np.arange(0.5, 400, 0.5):
        result = make_divisible(value, divisor)
        assert result % divisor == 0 and result >= divisor
        assert result >= 0.9 * value
        if result > divisor and result - divisor >= 0.9 * value:  # then it was rounded to the nearest
            assert abs(result - value) <= abs(result - divisor - value)
        assert abs(result - value) < divisor or result == divisor


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_out_size_is_what_a_convolution_makes(kernel, stride, dilation):
    convolution = nn.Conv2d(1, 1, kernel, stride, (kernel - 1) // 2 * dilation, dilation)
    for size in (1, 2, 5, 8, 13):
        assert convolution(torch.zeros(1, 1, size, 1)).shape[2] == conv_out_size(size, kernel, stride, dilation)


def test_block_table_at_width_1():
    configs = large_block_configs(1.0, (2, 2, 2, 2))
    rows = [(c.in_channels, c.kernel, c.expanded_channels, c.out_channels, c.use_se, c.stride) for c in configs]
    assert rows == TABLE
    assert [c.activation for c in configs] == [nn.ReLU] * 6 + [Hardswish] * 9
    assert {c.dilation for c in configs} == {1}


@pytest.mark.parametrize("width_mult", [0.1, 0.4, 2.0])
def test_block_table_scales_every_channel_count(width_mult):
    for config, row in zip(large_block_configs(width_mult, (2, 2, 2, 2)), TABLE, strict=True):
        assert config.in_channels == make_divisible(row[0] * width_mult)
        assert config.expanded_channels == make_divisible(row[2] * width_mult)
        assert config.out_channels == make_divisible(row[3] * width_mult)


def test_strides_go_to_blocks_2_4_7_and_13():
    configs = large_block_configs(1.0, (1, 2, 1, 2))
    assert [c.stride for c in configs] == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1]


def test_reduced_tail_halves_the_last_three_blocks():
    plain, reduced = large_block_configs(1.0, (2, 2, 2, 2)), large_block_configs(1.0, (2, 2, 2, 2), reduced_tail=True)
    assert plain[:12] == reduced[:12]
    rows = [(c.in_channels, c.expanded_channels, c.out_channels) for c in reduced[12:]]
    assert rows == [(112, 672, 80), (80, 480, 80), (80, 480, 80)]


def test_dilated_gives_the_last_three_blocks_dilation_2_without_stride():
    configs = large_block_configs(1.0, (2, 2, 2, 2), dilated=True)
    assert [c.dilation for c in configs] == [1] * 12 + [2] * 3
    assert [c.depthwise_stride for c in configs[12:]] == [1, 1, 1]
    block = InvertedResidual(configs[12], {"f": 8, "t": 9}, "c", "max", 4).eval()
    assert block(torch.randn(1, 112, 8, 9)).shape == (1, 160, 8, 9)


def numpy_gate(x: np.ndarray, layer: SqueezeExcitation, axis: str) -> np.ndarray:
    """Squeeze-and-excitation, one value at a time: (B, C, F, T) -> (B, C, F, T)."""
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in layer.parameters())
    position = "bcft".index(axis)
    result = np.empty_like(x)
    for b in range(x.shape[0]):
        slices = [np.take(x[b], i, axis=position - 1) for i in range(x.shape[position])]
        squeezed = np.array([part.sum() / part.size for part in slices])
        hidden = np.maximum(w1 @ squeezed + b1, 0)
        gate = 1 / (1 + np.exp(-(w2 @ hidden + b2)))
        for i, part in enumerate(slices):
            index = [slice(None)] * 3
            index[position - 1] = i
            result[b][tuple(index)] = part * gate[i]
    return result


def excite(module: nn.Module) -> None:
    """Weights large enough for gates to differ visibly."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.7)


@pytest.mark.parametrize("axis", ["c", "f", "t"])
def test_squeeze_excitation_scales_its_own_axis(axis):
    x = torch.randn(3, 4, 5, 6) + 1
    layer = SqueezeExcitation({"c": 4, "f": 5, "t": 6}[axis], 8, axis)
    excite(layer)
    with torch.no_grad():
        result = layer(x).numpy()
    np.testing.assert_allclose(result, numpy_gate(x.double().numpy(), layer, axis), atol=1e-5)


@pytest.mark.parametrize(("aggregation", "fuse"), [("max", np.max), ("min", np.min), ("avg", np.mean), ("add", np.sum)])
@pytest.mark.parametrize("axes", ["cf", "tc", "ftc"])
def test_concurrent_se_fuses_the_axes(axes, aggregation, fuse):
    sizes = {"c": 4, "f": 5, "t": 6}
    layer = ConcurrentSE(sizes, axes, aggregation, 4)
    excite(layer)
    x = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        result = layer(x).numpy()
    branches = [numpy_gate(x.double().numpy(), se, axis) for se, axis in zip(layer.conc_se_layers, axes, strict=True)]
    np.testing.assert_allclose(result, fuse(np.stack(branches), axis=0), atol=1e-5)


def test_squeeze_sizes_are_divisible_by_8():
    layer = ConcurrentSE({"c": 72, "f": 16, "t": 125}, "cft", "max", 4)
    assert [se.fc1.out_features for se in layer.conc_se_layers] == [24, 8, 32]
    assert [se.fc1.in_features for se in layer.conc_se_layers] == [72, 16, 125]
    assert ConcurrentSE({"c": 72}, "c", "max", 2).conc_se_layers[0].fc1.out_features == 40


def test_shortcut_only_where_shapes_allow():
    configs = large_block_configs(1.0, (2, 2, 2, 2))
    with torch.device("meta"):
        blocks = [InvertedResidual(config, {}, "c", "max", 4) for config in configs]
    shortcuts = [index for index, block in enumerate(blocks, start=1) if block.use_shortcut]
    assert shortcuts == [1, 3, 5, 6, 8, 9, 10, 12, 14, 15]
    block = InvertedResidual(configs[0], {}, "c", "max", 4).eval()
    nn.init.zeros_(block.block[-1][1].weight)  # the branch's last norm: only the shortcut is left
    x = torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(block(x.clone()), x)


def test_batch_norm_and_padding_of_every_convolution():
    with torch.device("meta"):
        block = InvertedResidual(large_block_configs(1.0, (2, 2, 2, 2), dilated=True)[13], {}, "c", "max", 4)
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            assert module.padding[0] == (module.kernel_size[0] - 1) // 2 * module.dilation[0]
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (0.001, 0.01)
