"""The prediction loop: a model over a data set, on one rank or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.training import distributed
from models.errors import UserError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Predictions:
    """A model's logits for a data set, in the data set's order."""

    names: list[str]
    targets: np.ndarray  # (N, K) float32
    logits: np.ndarray  # (N, K) float32

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Put the predictions for several data sets of the same classes together."""
        names = [name for part in parts for name in part.names]
        targets, logits = (np.concatenate([getattr(part, field) for part in parts]) for field in ("targets", "logits"))
        return cls(names, targets, logits)


def default_precision(device: torch.device) -> str:
    """Return the precision where none is asked for: the released models' float16 on GPUs, float32 on CPUs."""
    return "fp16" if device.type == "cuda" else "fp32"


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader, precision: str = "fp32") -> Predictions:
    """Run a model (with a `device`; its output is logits and embeddings) over a data set, in evaluation mode.

    The data set yields named tuples of input, target, name and index, such as `Clip` and `Picture`.

    `precision` is that of the network; front ends compute in float32. Several ranks, each with its own share of the clips in
    its loader, all get the predictions for all of them. RuntimeError when a clip is missing or occurs twice.
    """
    was_training = model.training
    model.eval()
    device: torch.device = model.device
    batches: list[tuple[np.ndarray, list[str], np.ndarray, np.ndarray]] = []
    autocast = torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")
    with autocast, clip_bar("evaluating", len(loader.dataset)) as bar:
        for clips in loader:
            inputs, target, name, index = clips[:4]
            output, _ = model(inputs.to(device, non_blocking=True))
            batches.append((index.numpy(), name, target.numpy(), output.float().cpu().numpy()))
            bar.update(len(name) * distributed.world_size())
    model.train(was_training)
    batches = [batch for share in distributed.gather(batches) for batch in share]
    if not batches:
        raise UserError("the data set holds no clips")
    indices, names, targets, logits = zip(*batches, strict=True)
    order = np.concatenate(indices)
    if not np.array_equal(np.sort(order), np.arange(len(loader.dataset))):
        raise RuntimeError(f"predictions of {len(order)} clips do not cover the {len(loader.dataset)} of the data set once each")
    positions = np.argsort(order)
    all_names = list(chain(*names))
    in_order = [all_names[position] for position in positions]
    return Predictions(in_order, np.concatenate(targets)[positions], np.concatenate(logits)[positions])


def clip_bar(description: str, total: int, initial: int = 0) -> tqdm:
    """Progress in clips; shown by the main rank, where standard error is a terminal."""
    disable = None if distributed.is_main() else True
    return tqdm(desc=description, total=total, initial=initial, unit="clip", leave=False, disable=disable)
