"""Training: the loop, runs, sampling, objectives, optimization, fine-tuning."""

from helpers.training.evaluation import Predictions, predict
from helpers.training.loop import fit
from helpers.training.run import Run

__all__ = ["Predictions", "Run", "fit", "predict"]
