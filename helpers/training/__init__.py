"""Training: the loop, runs, sampling, objectives, optimization, fine-tuning."""

from helpers.training.evaluation import Predictions, predict
from helpers.training.loop import fit

__all__ = ["Predictions", "fit", "predict"]
