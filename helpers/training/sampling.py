"""Which clips a training step sees, and with which randomness: functions of seed, epoch and step, and of nothing else.

So a run is the same with any number of loader workers, resumes after an interruption as if there had been none, and several
ranks share the epoch that one rank would have seen.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datasets.audio import AudioError
from datasets.images import ImageError
from helpers.seeding import derive_seed
from models.errors import UserError

MAX_REPLACEMENTS = 10

logger = logging.getLogger(__name__)


class ClipDraw(NamedTuple):
    """One clip of an epoch."""

    index: int  # in the data set
    seed: int  # of its cropping and augmentation


class SeededClips(Dataset):
    """A data set indexed by `ClipDraw`: whatever is random in `clips[index]` follows from the draw's seed.

    A recording or image that cannot be decoded is replaced by another one, also drawn by the seed, and logged. After
    `MAX_REPLACEMENTS` in a row the `AudioError` or `ImageError` is raised.
    """

    def __init__(self, clips: Dataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: ClipDraw) -> Any:
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(draw.seed)
            index = draw.index
            for _ in range(MAX_REPLACEMENTS):
                try:
                    return self.clips[index]
                except (AudioError, ImageError) as error:
                    logger.warning("another clip replaces one that cannot be decoded: %s", error)
                    index = int(torch.randint(len(self.clips), ()))
            return self.clips[index]


class KindSampler(Sampler[int]):
    """Draw clips of two kinds, of which the second has a share of the draws; a clip comes again when all of its kind have come."""

    def __init__(self, is_second: np.ndarray, share: float, count: int) -> None:
        """`is_second` (N,) says of which kind a clip is, and there are clips of both; `count` clips are drawn."""
        second = round(share * count)
        self._kinds = [(np.flatnonzero(~is_second), count - second), (np.flatnonzero(is_second), second)]
        draws = [number / len(indices) for indices, number in self._kinds]
        self.weights = torch.from_numpy(np.where(is_second, draws[1], draws[0]))  # expected draws, for the fingerprint of batches
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return sum(number for _, number in self._kinds)

    def __iter__(self) -> Iterator[int]:
        drawn = []
        for indices, number in self._kinds:
            rounds = range(max(1, -(-number // len(indices))))
            order = torch.cat([torch.randperm(len(indices), generator=self.generator) for _ in rounds])
            drawn.append(torch.from_numpy(indices)[order[:number]])
        mixed = torch.cat(drawn)
        return iter(mixed[torch.randperm(len(mixed), generator=self.generator)].tolist())


class TrainingBatches(Sampler[list[ClipDraw]]):
    """The batches of an epoch, cut into equal micro-batches: `accumulate` a step for each of `world_size` ranks.

    The epoch's clips are drawn by `sampler`, whose generator is seeded for each epoch. A last batch that is not full is left out.
    With one product of `accumulate` and `world_size`, clips, order and randomness are the same, whatever the factors.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch_size: int,
        *,
        seed: int,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        names: Sequence[str] = (),
    ) -> None:
        """`batch_size` is that of one step of the optimizer, over all micro-batches and ranks.

        The attribute `fingerprint` identifies the data set: a hash of the number of clips drawn, of all clips' weights and of
        their `names`, if given.
        """
        self.micro_batches = accumulate * world_size
        if batch_size % self.micro_batches:
            raise UserError(
                f"a batch of {batch_size} clips cannot be cut into {self.micro_batches} equal micro-batches (ranks times "
                f"--accumulate); use a --batch_size that {self.micro_batches} divides"
            )
        self.steps = len(sampler) // batch_size
        if not self.steps:
            raise UserError(f"{len(sampler)} clips give no full batch of {batch_size}: use more clips or a smaller --batch_size")
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.accumulate = accumulate
        self.rank = rank
        weights = getattr(sampler, "weights", torch.empty(0)).numpy()
        content = b"%d %d " % (len(sampler), batch_size) + weights.tobytes() + "\0".join(names).encode()
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        self._epoch = self._first_step = 0

    @property
    def epoch(self) -> int:
        """The epoch that was started last."""
        return self._epoch

    def start(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration be the rest of `epoch` from `step` on."""
        self._epoch, self._first_step = epoch, step

    def __len__(self) -> int:
        return (self.steps - self._first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[ClipDraw]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self._epoch))
        self.sampler.generator = generator
        indices = list(self.sampler)
        seeds = torch.randint(2**62, (len(indices),), generator=generator).tolist()
        draws = list(map(ClipDraw, indices, seeds))
        size = self.batch_size // self.micro_batches
        for step in range(self._first_step, self.steps):
            for number in self._own():
                first = step * self.batch_size + number * size
                yield draws[first : first + size]

    def seed_micro_batch(self, step: int, number: int) -> None:
        """Seed torch for what is random in the forward pass of this rank's `number`-th micro-batch in a step of this epoch."""
        torch.manual_seed(derive_seed(self.seed, self._epoch, step, self._own()[number]))

    def _own(self) -> range:
        """Numbers of this rank's micro-batches in a step."""
        return range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
