"""The one training loop and the one prediction loop of all experiments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.run import Run
from models.waveform import WaveformModel


@dataclass(frozen=True)
class Predictions:
    """What a model says of a data set, in the data set's order."""

    names: list[str]
    targets: np.ndarray  # (N, K) float32
    logits: np.ndarray  # (N, K) float32


def to_device(clips: Any, device: torch.device) -> Any:
    """Move the tensors of a collated named tuple; names stay where they are."""
    return clips._replace(
        **{field: value.to(device, non_blocking=True) for field, value in clips._asdict().items() if isinstance(value, Tensor)}
    )


def fit(
    model: WaveformModel,
    loader: DataLoader,
    training_loss: Callable[[Any], dict[str, Tensor]],
    evaluate: Callable[[], dict[str, float]],
    *,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    n_epochs: int,
    run: Run,
    selection: str,
) -> dict[str, float]:
    """Train for `n_epochs` and return the last epoch's metrics.

    `training_loss` maps a batch of clips on the model's device to its named losses, of which "loss" is minimised and all are
    logged; `schedule(epoch)` is the factor of the learning rate; `evaluate()` returns the metrics of an epoch, of which
    `selection` decides about best.pt. A loss that is not finite ends the training with a `ValueError`.
    """
    if not isinstance(loader, Sized) or len(loader) == 0:
        raise ValueError("there is no full batch to train on: use more clips or a smaller --batch_size")
    model.network.to(memory_format=torch.channels_last)  # on CPUs a third faster, on GPUs what half precision wants
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    metrics: dict[str, float] = {}
    for epoch in range(n_epochs):
        start = perf_counter()
        model.train()
        sums: dict[str, float] = {}
        progress = tqdm(loader, desc=f"epoch {epoch}", leave=False, disable=None)
        for clips in progress:
            losses = training_loss(to_device(clips, model.device))
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            optimizer.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            if not math.isfinite(sums["loss"]):
                raise ValueError(f"the training loss became {losses['loss'].item()} in epoch {epoch}; try a smaller --max_lr")
            progress.set_postfix({name: f"{value.item():.4f}" for name, value in losses.items()})
        metrics = {f"train_{name}": total / len(loader) for name, total in sums.items()}
        metrics["learning_rate"] = scheduler.get_last_lr()[0]
        scheduler.step()
        metrics |= evaluate()
        metrics["seconds"] = perf_counter() - start
        run.log(epoch, metrics)
        run.save(model.network, epoch, metrics, selection)
    return metrics


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader) -> Predictions:
    """Run a model (waveforms in, (logits, embedding) out; with a `device`) over a data set, in evaluation mode."""
    was_training = model.training
    model.eval()
    names: list[str] = []
    targets: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    for clips in tqdm(loader, desc="evaluating", leave=False, disable=None):
        output, _ = model(clips.waveform.to(model.device, non_blocking=True))
        names += clips.name
        targets.append(clips.target.numpy())
        logits.append(output.float().cpu().numpy())
    model.train(was_training)
    if not names:
        raise ValueError("the data set holds no clips")
    return Predictions(names, np.concatenate(targets), np.concatenate(logits))
