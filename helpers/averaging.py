"""The exponential moving average of a network's weights, which is evaluated and kept in place of the weights themselves."""

from __future__ import annotations

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.network import MobileNetV3


def moving_average(network: MobileNetV3, decay: float) -> AveragedModel:
    """An average of weights and batch-norm statistics that keeps `decay` of itself at each step.

    In step t it keeps no more than (1 + t) / (10 + t), so that the average of a short training does not hold its first weights
    (as TensorFlow's ExponentialMovingAverage with `num_updates` does).
    """

    def update(average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        return average + (current - average) * (9.0 / (steps + 10.0)).clamp(min=1.0 - decay)

    return AveragedModel(network, avg_fn=update, use_buffers=True)
