"""The prediction loop: a model over a data set, on one rank or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.devices import copied_ahead, synchronize
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
    """Return the precision where none is asked for: on GPUs bfloat16, or float16 where they have none, on CPUs float32."""
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes in one of `PRECISIONS`; front ends compute in float32 also within it."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def suit_device(model: nn.Module, device: torch.device) -> None:
    """Lay out the weights of a model that is to be evaluated as its device wants them: on GPUs, channels last."""
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)


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
    suit_device(model, device)

    def copy(clips: Any) -> tuple[Any, list[Tensor]]:
        inputs = clips[0].to(device, non_blocking=True)
        return (inputs, *clips[1:4]), [inputs]

    computed: list[tuple[Tensor, list[str], Tensor, Tensor]] = []
    with autocast(device, precision), clip_bar("evaluating", len(loader.dataset)) as bar:
        for inputs, target, name, index in copied_ahead(loader, copy, device):
            logits, _ = model(inputs)
            computed.append((index, name, target, logits.float().to("cpu", non_blocking=True)))
            bar.update(len(name) * distributed.world_size())
    synchronize(device)
    model.train(was_training)
    own = [(index.numpy(), name, target.numpy(), logits.numpy()) for index, name, target, logits in computed]
    batches = [batch for share in distributed.gather(own) for batch in share]
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
