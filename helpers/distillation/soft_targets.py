"""Soft targets: the probabilities that a teacher's stored logits give a clip, found by the clip's name."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.clip import Clip, DistillationClip
from helpers.distillation.teacher_logits import TeacherLogits, check_preds, read_pickle
from helpers.training.objectives import bce_per_clip
from models import assets
from models.assets import AssetError
from models.errors import UserError

logger = logging.getLogger(__name__)

PREDS_ASSET = "passt_enemble_logits_mAP_495.npy"  # the release's spelling
MAX_BYTES = 1 << 33  # of each: 2 million rows of 527 logits, 16 bits each, are 2 GB
INDEX_ASSET = "fname_to_index.pkl"


class SoftTargetDataset(Dataset):
    """A data set of `Clip` that yields `DistillationClip`.

    The soft target is sigmoid(logits / temperature), its weight 1. Both are 0 for a clip without teacher logits.
    """

    def __init__(self, clips: Dataset[Clip], teacher: TeacherLogits, temperature: float = 1.0) -> None:
        """ValueError unless `temperature` is above 0."""
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; it must be above 0")
        self.clips = clips
        self.teacher = teacher
        self.temperature = temperature

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> DistillationClip:
        clip = self.clips[index]
        logits = self.teacher.row(clip.name)
        if logits is None:
            return DistillationClip(*clip, torch.zeros(self.teacher.num_classes), torch.tensor(0.0))
        return DistillationClip(*clip, torch.sigmoid(torch.from_numpy(logits) / self.temperature), torch.tensor(1.0))


def soft_target_bce_per_clip(logits: Tensor, soft_target: Tensor, soft_target_weight: Tensor) -> Tensor:
    """Weighted binary cross entropy: logits (B, K), soft_target (B, K) in [0, 1], soft_target_weight (B,) -> (B,)."""
    return soft_target_weight * bce_per_clip(logits, soft_target)


def load_teacher(args: argparse.Namespace, names: Iterable[str], num_classes: int) -> TeacherLogits:
    """Open the teacher logits that the options name, or the release's, for a data set's clips; log how many of them have a row.

    Raises FileNotFoundError for a given path that is not there, AssetError where a download fails, and ValueError.
    """
    preds, index = args.teacher_preds, args.fname_to_index
    for option, path in (("--teacher_preds", preds), ("--fname_to_index", index)):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{option} {path} not found; correct it, or leave it out to use the release's")
    if preds is not None and index is None and preds.with_suffix(".txt").is_file():
        index = preds.with_suffix(".txt")
    index = index or _fetch(INDEX_ASSET, read_pickle)
    preds = preds or _fetch(PREDS_ASSET, lambda path: check_preds(path, num_classes))
    teacher = TeacherLogits(preds, index, names, num_classes)
    logger.info("teacher: %d of %d clips have a row in %s", teacher.covered, teacher.clips, preds.name)
    if not teacher.covered:
        logger.warning(
            "NO CLIP HAS TEACHER LOGITS, so nothing is distilled: the data set has names like %r, %s like %r",
            teacher.examples[0], index, teacher.examples[1],
        )  # fmt: skip
    return teacher


def _fetch(asset: str, check: Callable[[Path], Any]) -> Path:
    try:
        return assets.fetch(asset, check, max_bytes=MAX_BYTES)
    except AssetError as error:
        raise AssetError(f"{error}; --kd_lambda 1 trains without a teacher") from error
