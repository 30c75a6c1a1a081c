"""What is wrong with the recordings of a data set, logged once for each and not in every epoch."""

import logging
from collections.abc import Sequence

import torch

logger = logging.getLogger(__name__)


class DamageLog:
    """Logs what is wrong with a clip when it is read first, by whichever loader worker."""

    def __init__(self, clips: int) -> None:
        self._told = torch.zeros(clips, dtype=torch.bool).share_memory_()  # seen by all workers of a loader

    def __call__(self, index: int, warnings: Sequence[str]) -> None:
        """Take what was found while clip `index` was read."""
        if warnings and not self._told[index]:
            self._told[index] = True
            for text in warnings:
                logger.warning("%s", text)
