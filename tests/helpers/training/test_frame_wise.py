"""What trains frame-wise networks: losses under mixing, learning rates, how clips are drawn."""

import argparse
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from datasets.clip import FrameClip
from helpers.training.frame_wise import Form, draw_clips, keeps_head, mix_weighted, parameter_groups, shifted, weighted_bce
from helpers.training.mixing import Mix
from models.config import FrameWiseArch
from models.errors import UserError


class Clips:
    """Clips of which only it matters whether times are known."""

    def __init__(self, has_times: list[bool]) -> None:
        self.has_times = np.array(has_times)

    def __len__(self) -> int:
        return len(self.has_times)


def test_the_loss_on_mixed_targets_is_the_mixed_loss() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 5), torch.rand(3, 2, 5)
    weight = torch.tensor([1.0, 0.0, 0.6])
    mix = Mix(torch.tensor([1, 2, 0]), torch.tensor([0.7, 0.5, 0.9]))

    def loss(clip: int, of: int) -> torch.Tensor:
        return weight[of] * functional.binary_cross_entropy_with_logits(logits[clip], target[of])

    expected = sum(w * loss(i, i) + (1 - w) * loss(i, int(mix.partner[i])) for i, w in enumerate(mix.weight)) / 3
    assert weighted_bce(logits, *mix_weighted(mix, target, weight)) == pytest.approx(float(expected), rel=1e-5)
    plain = sum(loss(i, i) for i in range(3)) / 3
    assert weighted_bce(logits, *mix_weighted(None, target, weight)) == pytest.approx(float(plain), rel=1e-5)


def test_targets_of_clips_without_times_cost_nothing() -> None:
    mix = Mix(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
    target, weight = mix_weighted(mix, torch.ones(2, 1, 4), torch.zeros(2))
    assert not weight.any() and torch.isfinite(target).all()


@pytest.mark.parametrize("taught", [False, True])
def test_sound_and_targets_are_shifted_alike(taught: bool) -> None:
    form = Form(sample_rate=1000, frames=25, step=0.04)
    target = torch.zeros(40, 2, 25)
    target[torch.arange(40), 0, torch.arange(40) % 25] = 1
    waveform = target[:, 0].repeat_interleave(40, 1)  # loud where the first class is active
    soft = target[:, :1] if taught else torch.zeros(40, 0)
    clips = FrameClip(waveform, target, "", 0, torch.ones(40), target.amax(2), soft, torch.ones(40))
    torch.manual_seed(0)
    moved, after = shifted(clips, 0.3, form)
    assert torch.equal(moved, after.target[:, 0].repeat_interleave(40, 1)) and not torch.equal(moved, waveform)
    assert not taught or torch.equal(after.soft_target, after.target[:, :1])
    assert shifted(clips, 0.0, form) == (waveform, clips)


def test_the_rate_falls_from_the_last_convolution_to_the_stem() -> None:
    network = nn.Module()
    network.features = nn.Sequential(*(nn.Linear(2, 2) for _ in range(17)))
    network.head, network.unused = nn.Linear(2, 3), nn.Linear(2, 3).requires_grad_(False)
    groups = parameter_groups(network, 1e-2, 0.9, 3e-3)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    rates = [rate_of[id(stage.weight)] for stage in network.features]
    assert rates == pytest.approx([1e-2 * 0.9 ** (16 - i) for i in range(17)])
    assert rate_of[id(network.head.bias)] == 3e-3 and id(network.unused.weight) not in rate_of
    assert len(rate_of) == 2 * 18


@pytest.mark.parametrize(
    ("name", "arch", "kept"),
    [
        ("fmn10_strong", FrameWiseArch(447), True),
        ("fmn10_strong", FrameWiseArch(447, 1.0, "tf", 256), False),  # starts from the convolutions alone
        ("fmn10+tf-256", FrameWiseArch(447, 1.0, "tf", 256), True),
        ("fmn10_strong", FrameWiseArch(3), False),
        ("fmn10_weak", FrameWiseArch(527), False),  # has no trained head for frames
        ("mn10_as", FrameWiseArch(527), False),
        (None, FrameWiseArch(447), False),
    ],
)
def test_which_heads_are_new(name: str | None, arch: FrameWiseArch, kept: bool) -> None:
    assert keeps_head(name, SimpleNamespace(arch=arch)) is kept


def test_clips_without_times_have_their_share() -> None:
    args = argparse.Namespace(epoch_len=200, weak_share=0.25)
    drawn = list(draw_clips(Clips([True] * 10_000 + [False] * 50_000), args))
    assert len(drawn) == len(set(drawn)) == 200
    assert sum(index >= 10_000 for index in drawn) == 50 and drawn != sorted(drawn)
    all_of_few = Counter(draw_clips(Clips([True] * 30 + [False] * 10), argparse.Namespace(epoch_len=None, weak_share=0.6)))
    assert all_of_few.total() == 40 and {all_of_few[index] for index in range(30, 40)} == {2, 3}
    alone = list(draw_clips(Clips([True] * 3 + [False] * 2), argparse.Namespace(epoch_len=4, weak_share=1.0)))
    assert sorted(alone) == [3, 3, 4, 4]
    assert len(list(draw_clips(Clips([True] * 30), args))) == 30
    with pytest.raises(UserError, match="no training clip"):
        draw_clips(Clips([False] * 3), args)
