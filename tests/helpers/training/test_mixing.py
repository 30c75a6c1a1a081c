import numpy as np
import pytest
import torch

from helpers.training.mixing import Mix, mixed_loss, mixup
from helpers.training.objectives import bce_per_clip, cross_entropy_per_clip


def test_mixup_is_the_convex_combination_it_reports() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 5)
    mixed, mix = mixup(x, alpha=0.3)
    assert mix is not None and sorted(mix.partner.tolist()) == list(range(64))
    assert mix.weight.min() >= 0.5 and mix.weight.max() <= 1.0
    for i in range(64):
        expected = mix.weight[i] * x[i] + (1 - mix.weight[i]) * x[mix.partner[i]]
        torch.testing.assert_close(mixed[i], expected)


def test_weights_follow_the_folded_beta_distribution() -> None:
    torch.manual_seed(0)
    _, mix = mixup(torch.zeros(20_000, 1), alpha=0.3)
    drawn = np.random.default_rng(0).beta(0.3, 0.3, 200_000)
    assert mix.weight.mean().item() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=5e-3)


def test_alpha_zero_is_off() -> None:
    x = torch.randn(4, 2)
    mixed, mix = mixup(x, alpha=0)
    assert mixed is x and mix is None


def test_mixed_loss_equals_the_loss_on_mixed_targets() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(6, 11), (torch.rand(6, 11) < 0.3).float()
    mix = Mix(torch.tensor([1, 2, 3, 4, 5, 0]), torch.linspace(0.5, 1.0, 6))
    mixed_target = mix.weight[:, None] * target + (1 - mix.weight[:, None]) * target[mix.partner]
    torch.testing.assert_close(mixed_loss(bce_per_clip, logits, mix, target), bce_per_clip(logits, mixed_target))


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    logits, target = torch.randn(5, 4), torch.eye(4)[[0, 3, 1, 1, 2]]
    smoothed = 0.9 * target + 0.1 / 4
    expected = -(smoothed * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(cross_entropy_per_clip(logits, target, label_smoothing=0.1), expected)
