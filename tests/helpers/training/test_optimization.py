from collections import Counter

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.training.optimization import (
    MovingAverage,
    exp_warmup_linear_down,
    linear_warmup_cosine_down,
    recompute_statistics,
)
from models.MobileNetV3 import get_model


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [  # computed by hand from the recipe: warm-up 8, constant to 80, down over 95 epochs to 0.01
        (0, 0.0123446),
        (7, 0.9248485),
        (8, 1.0),
        (80, 1.0),
        (81, 0.9895789),
        (128, 0.4997895),
        (175, 0.01),
        (199, 0.01),
    ],
)
def test_factors_of_the_published_recipe(epoch: int, factor: float) -> None:
    assert exp_warmup_linear_down(epoch, 8, 80, 95, 0.01) == pytest.approx(factor, rel=1e-4)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert exp_warmup_linear_down(0, warm_up_len=0, ramp_down_start=6, ramp_down_len=9) == 1.0


def test_no_ramp_drops_at_once() -> None:
    assert exp_warmup_linear_down(5, warm_up_len=0, ramp_down_start=5, ramp_down_len=0, last_value=0.1) == 1.0
    assert exp_warmup_linear_down(6, warm_up_len=0, ramp_down_start=5, ramp_down_len=0, last_value=0.1) == 0.1


def test_cosine_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for epoch in range(3, 15):
        assert linear_warmup_cosine_down(epoch, 15, 3) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        schedule.step()
    assert [linear_warmup_cosine_down(epoch, 15, 3) for epoch in range(3)] == [0.25, 0.5, 0.75]
    assert linear_warmup_cosine_down(0, 1, 0) == 1.0
    assert linear_warmup_cosine_down(2, 2, 5) == 0.5  # a ramp up that is longer than the training


def test_the_moving_average_is_bitwise_that_of_single_tensors() -> None:
    """Counters of batches included, which are whole numbers."""

    def update(average: torch.Tensor, current: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return average + (current - average) * (9.0 / (steps + 10.0)).clamp(min=0.1)

    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    average, expected = MovingAverage(network, 0.9), AveragedModel(network, avg_fn=update, use_buffers=True)
    for _ in range(120):
        with torch.no_grad():
            network(torch.randn(2, 1, 8, 8))
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        for averaged in (average, expected):
            averaged.update_parameters(network)
    for name, tensor in expected.module.state_dict().items():
        assert torch.equal(tensor, average.module.state_dict()[name]), name
    assert average.module[1].num_batches_tracked not in (0, 120)


class CountedOperations(TorchDispatchMode):
    """Counts operations by name, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[operation.overloadpacket.__name__] += operation.overloadpacket is not torch.ops.aten.detach
        return operation(*args, **(kwargs or {}))


def test_a_step_of_the_moving_average_has_as_many_operations_for_any_number_of_layers() -> None:
    totals = []
    for depth in (1, 20):
        network = nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))))
        average = MovingAverage(network, 0.9)
        average.update_parameters(network)  # the first step copies each tensor
        with CountedOperations() as counted:
            average.update_parameters(network)
        totals.append(counted.counts.total())
    assert totals[0] == totals[1] <= 25


def test_statistics_computed_again_are_those_of_the_batches() -> None:
    torch.manual_seed(0)
    network = get_model(width_mult=0.1, num_classes=2).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.fill_(7)
    weights = [parameter.clone() for parameter in network.parameters()]
    batches = [torch.randn(4, 1, 32, 20) * scale for scale in (1, 3)]
    recompute_statistics(network, batches)
    stem = [network.features[0][0](batch) for batch in batches]
    torch.testing.assert_close(norms[0].running_mean, sum(y.mean((0, 2, 3)) for y in stem) / 2)
    torch.testing.assert_close(norms[0].running_var, sum(y.var((0, 2, 3)) for y in stem) / 2)
    assert all(norm.running_mean.abs().max() < 7 for norm in norms) and {norm.momentum for norm in norms} == {0.01}
    assert not any(module.training for module in network.modules())
    assert all(map(torch.equal, weights, network.parameters()))
    with pytest.raises(ValueError, match="no batches"):
        recompute_statistics(network, [])
