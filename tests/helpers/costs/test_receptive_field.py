from __future__ import annotations

import pytest
import torch

from helpers.costs.receptive_field import EffectiveField, effective_receptive_field, receptive_field
from models.config import Arch
from models.network import MobileNetV3

TINY = {"width_mult": 0.1, "num_classes": 10}


@pytest.mark.parametrize(("strides", "frames", "step"), [((2, 2, 2, 2), 595, 32), ((2, 2, 2, 1), 467, 16), ((2, 2, 1, 1), 291, 8)])
def test_the_published_receptive_fields(strides: tuple, frames: int, step: int) -> None:
    report = receptive_field(Arch(**TINY, strides=strides))
    assert (report.frames, report.bands) == (frames, frames)
    assert report.rows[0].size == (3, 3) and report.rows[0].step == (2, 2) and report.rows[0].name == "features.0.0"
    assert report.rows[-1].step == (step, step)
    assert receptive_field(Arch(strides=strides)).frames == frames  # at any width


def positive_network(arch: Arch) -> MobileNetV3:
    """A network in which every path from the spectrogram to a feature has a gradient above 0."""
    network = MobileNetV3(arch).eval().double()
    for parameter in network.features.parameters():
        parameter.data.abs_()
    return network


@pytest.mark.parametrize(
    "changes",
    [{"strides": (2, 2, 2, 2)}, {"strides": (2, 2, 2, 1)}, {"strides": (2, 2, 1, 1)}, {"strides": (2, 2, 2, 1), "dilated": True}],
    ids=str,
)
def test_gradients_reach_as_far_as_the_analytic_field(changes: dict) -> None:
    network = positive_network(Arch(**TINY, **changes, input_dim_f=32))
    report = receptive_field(network)
    frames = report.frames + 101
    field = effective_receptive_field(network, torch.rand(1, 1, 32, frames, dtype=torch.float64))
    reached = field.profile.nonzero()[:, 0]
    assert (int(reached[0]), int(reached[-1])) == (field.middle - report.frames // 2, field.middle + report.frames // 2)
    assert 10 < field.frames < report.frames


def test_gates_are_held_and_hooks_removed() -> None:
    network = positive_network(Arch(**TINY, strides=(2, 2, 1, 1), input_dim_f=32))
    spectrograms = torch.rand(1, 1, 32, 400, dtype=torch.float64)
    assert effective_receptive_field(network, spectrograms).profile.count_nonzero() == 291
    assert not any(module._forward_pre_hooks for module in network.modules())
    x = spectrograms.requires_grad_()
    network.features(x)[0, :, 2, 25].sum().backward()
    assert x.grad.count_nonzero() == x.numel()  # through the gates it sees everything
    assert all(parameter.grad is not None for parameter in network.features[15].parameters())
    broken = MobileNetV3(Arch(**TINY, se_dims="t", input_dim_t=100)).eval()
    with pytest.raises(ValueError, match="axis 't'"):
        effective_receptive_field(broken, torch.rand(1, 1, 128, 300))
    assert not any(module._forward_pre_hooks for module in broken.modules())


def test_the_span_leaves_off_both_ends() -> None:
    gradient = torch.zeros(2, 100)
    gradient[:, 40:60] = 5
    gradient[:, 0] = gradient[:, 99] = 1
    field = EffectiveField(gradient, 50)
    assert field.profile.sum() == pytest.approx(1)
    assert (field.span, field.frames) == ((40, 59), 20)


def test_the_mean_over_recordings() -> None:
    network = positive_network(Arch(**TINY, input_dim_f=32))
    spectrograms = torch.rand(2, 1, 32, 700, dtype=torch.float64)
    one, two = (effective_receptive_field(network, spectrogram[None]) for spectrogram in spectrograms)
    both = effective_receptive_field(network, spectrograms)
    assert torch.allclose(both.gradient, (one.gradient + two.gradient) / 2)
