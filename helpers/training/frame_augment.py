"""Augmentation of clips with targets in time: shift, time masking, FilterAugment. All draws come from torch's default generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FILTER_BANDS = (3, 6)  # FilterAugment's numbers of bands, both included
FILTER_MIN_WIDTH = 6  # mel bands


def draw_shifts(clips: int, seconds: float, step: float) -> Tensor:
    """Whole steps to shift each clip by, (B,) int64: normally distributed, `seconds` is the standard deviation."""
    return (torch.randn(clips) * (seconds / step)).round().long()


def shift(x: Tensor, positions: Tensor) -> Tensor:
    """Shift each example of x (B, ..., T) in a circle along its last axis, by `positions` (B,)."""
    return torch.stack([example.roll(by, -1) for example, by in zip(x, positions.tolist(), strict=True)])


def draw_heard(clips: int, steps: int, longest: int) -> Tensor:
    """Which steps of each clip are not masked, (B, T) of 0 and 1: one run of 0 to `longest` steps, anywhere, is 0."""
    width = torch.randint(min(longest, steps) + 1, (clips, 1))
    start = (torch.rand(clips, 1) * (steps - width + 1)).floor()
    position = torch.arange(steps)
    return ((position < start) | (position >= start + width)).float()


def mask_spectrograms(x: Tensor, heard: Tensor) -> Tensor:
    """Give the frames of spectrograms (B, F, frames) that are not `heard`, (B, T), the lowest value of their spectrogram.

    As the masked sound is not heard, its targets belong to 0 as well: so do Nam et al. (DCASE 2021).
    """
    frames = x.shape[2]
    step_of_frame = torch.arange(frames, device=x.device) * heard.shape[1] // frames
    return torch.where(heard[:, None, step_of_frame] > 0, x, x.amin((1, 2), keepdim=True))


def filter_augment(x: Tensor, max_db: float) -> Tensor:
    """Filter each log-mel spectrogram of x (B, F, frames) by a random response of straight lines, +-`max_db` at their ends.

    FilterAugment, linear (Nam et al., ICASSP 2022): a call draws the borders of 3 to 6 bands, each at least 6 mel bands wide.
    """
    bands = x.shape[1]
    count = int(torch.randint(FILTER_BANDS[0], FILTER_BANDS[1] + 1, ()))
    spare = bands - count * FILTER_MIN_WIDTH
    cuts = torch.randint(max(spare, 0) + 1, (count - 1,)).sort().values + FILTER_MIN_WIDTH * torch.arange(1, count)
    borders = torch.cat([torch.zeros(1), cuts.clamp(max=bands - 1), torch.full((1,), bands - 1.0)])
    gains = (2 * torch.rand(len(x), count + 1) - 1) * max_db  # dB at the borders
    position = torch.arange(float(bands))
    after = torch.searchsorted(borders, position, right=True).clamp(1, count)
    low, high = borders[after - 1], borders[after]
    share = ((position - low) / (high - low).clamp(min=1)).clamp(0, 1)
    response = torch.lerp(gains[:, after - 1], gains[:, after], share)  # (B, F)
    return x + (response * (math.log(10) / 10 / 5))[..., None].to(x.device)  # of energies; front ends divide their logarithm by 5
