"""Augmentation of clips with targets in time."""

import math

import torch

from helpers.training.frame_augment import draw_heard, draw_shifts, filter_augment, mask_spectrograms, shift


def test_shifts_are_circular_and_differ_between_clips() -> None:
    x = torch.arange(12.0).reshape(2, 1, 6)
    assert shift(x, torch.tensor([1, -2])).flatten().tolist() == [5, 0, 1, 2, 3, 4, 8, 9, 10, 11, 6, 7]
    torch.manual_seed(0)
    steps = draw_shifts(4000, 1.25, 0.04)
    assert steps.dtype == torch.int64 and abs(steps.float().std() - 31.25) < 1.5 and abs(steps.float().mean()) < 2


def test_masks_hide_one_run_of_frames_and_their_steps() -> None:
    torch.manual_seed(0)
    heard = draw_heard(500, 50, 10)
    hidden = (1 - heard).sum(1)
    assert hidden.min() == 0 and hidden.max() == 10 and 4 < hidden.mean() < 6
    assert ((heard.diff(dim=1) == -1).sum(1) <= 1).all()
    assert (1 - heard).sum(0).min() > 0  # anywhere
    x = torch.randn(500, 4, 200)
    masked = mask_spectrograms(x, heard)
    frames = heard.repeat_interleave(4, 1).bool()[:, None].expand_as(x)
    assert torch.equal(masked[frames], x[frames])
    assert torch.equal(masked[~frames], x.amin((1, 2))[:, None, None].expand_as(x)[~frames])
    assert draw_heard(3, 50, 0).all()


def test_filters_are_straight_lines_within_their_range() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 128, 3)
    limit = 6 * math.log(10) / 50  # dB of energies, in units of the front end
    for _ in range(20):
        response = filter_augment(x, 6.0) - x
        assert torch.allclose(response, response[..., :1].expand_as(response), atol=1e-5)
        response = response[..., 0]
        assert response.abs().max() <= limit + 1e-5 and (response[0] - response[1]).abs().max() > 0.01
        bends = (response.diff(n=2).abs().amax(0) > 1e-5).nonzero().flatten()
        assert 2 <= len(bends) <= 5 * 2  # between 3 to 6 bands
    assert torch.equal(filter_augment(x, 0.0), x)
