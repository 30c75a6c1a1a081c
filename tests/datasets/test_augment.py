"""datasets.augment: what each augmentation keeps, and how often and how much it changes."""

import pytest
import torch
from torch.utils.data import Dataset

from datasets.augment import Augmented, gain, roll
from datasets.clip import Clip


class Toy(Dataset):
    """Clip i is a sine of its own frequency plus an offset, with class i."""

    names = [f"clip{i}" for i in range(8)]

    def __init__(self, lengths=(400,) * 8):
        self.lengths = lengths

    def __len__(self):
        return 8

    def __getitem__(self, index):
        t = torch.arange(self.lengths[index]) / 400
        return Clip(torch.sin(2 * torch.pi * (index + 1) * t) + 0.5, torch.eye(8)[index], self.names[index], index)

    def targets(self, start=0, stop=None):
        return torch.eye(8).numpy()[start:stop]


def test_roll_is_circular_and_reaches_both_ends():
    waveform = torch.arange(10.0)
    generator = torch.Generator().manual_seed(0)
    shifts = {int((roll(waveform, 2, generator) == 0).nonzero()) for _ in range(200)}
    assert shifts == {8, 9, 0, 1, 2}
    assert sorted(roll(waveform, 2, generator).tolist()) == waveform.tolist()


def test_gain_is_uniform_in_decibels():
    generator = torch.Generator().manual_seed(0)
    decibels = torch.stack([20 * gain(torch.ones(3), 12, generator).log10() for _ in range(1000)])
    assert (decibels == decibels[:, :1]).all()  # one factor for all samples
    assert decibels.abs().max() <= 12.001
    assert decibels.mean().abs() < 0.5
    assert decibels[:, 0].std() == pytest.approx(12 / 3**0.5, rel=0.06)


def test_without_options_clips_pass_unchanged():
    clips, plain = Toy(), Augmented(Toy())
    assert len(plain) == 8
    for index in range(8):
        assert torch.equal(plain[index].waveform, clips[index].waveform)
        assert torch.equal(plain[index].target, clips[index].target)


def test_roll_and_gain_keep_target_name_and_index():
    torch.manual_seed(0)
    clip = Augmented(Toy(), roll=100, gain_db=6)[3]
    assert (clip.name, clip.index) == ("clip3", 3)
    assert torch.equal(clip.target, torch.eye(8)[3])
    assert not torch.equal(clip.waveform, Toy()[3].waveform)


def test_wavmix_mixes_half_of_the_clips_and_targets_with_one_lambda():
    torch.manual_seed(0)
    clips, mixed = list(map(Toy().__getitem__, range(8))), Augmented(Toy(), wavmix=True)
    lambdas, untouched = [], 0
    for _ in range(400):
        clip = mixed[2]
        assert (clip.name, clip.index) == ("clip2", 2)
        assert clip.target.sum() == pytest.approx(1)
        if torch.equal(clip.waveform, clips[2].waveform):
            untouched += 1
            continue
        others = clip.target.clone()
        others[2] = 0
        if not others.any():  # mixed with itself: only the mean is gone
            assert torch.allclose(clip.waveform, clips[2].waveform - 0.5, atol=1e-5)
            continue
        lam, other = float(clip.target[2]), int(others.argmax())
        expected = lam * (clips[2].waveform - 0.5) + (1 - lam) * (clips[other].waveform - 0.5)
        assert torch.allclose(clip.waveform, expected, atol=1e-5)
        lambdas.append(lam)
    assert 160 < untouched < 240
    assert min(lambdas) >= 0.5
    assert sum(lambdas) / len(lambdas) == pytest.approx(11 / 16, abs=0.03)  # mean of max(l, 1 - l), l ~ Beta(2, 2)


def test_wavmix_needs_equal_lengths():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="400"):
        mixed = Augmented(Toy((400, 300) * 4), wavmix=True)
        for _ in range(100):
            mixed[0]


@pytest.mark.parametrize("options", [{"roll": -1}, {"gain_db": -1}])
def test_negative_options_are_refused(options):
    with pytest.raises(ValueError):
        Augmented(Toy(), **options)
