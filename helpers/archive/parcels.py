"""What decoding hands to the network: parcels of sound, each with a few recordings or a part of a long one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

STAGING = "staging"
PARCEL_SECONDS = 300.0  # of sound; a parcel holds more only where one part alone does
PART_SECONDS = 600.0  # recordings that are longer are cut


@dataclass(frozen=True)
class Piece:
    """A recording, a part of a long one, or the failure of one."""

    source: str
    position: tuple[int, int]  # number of the recording in its task, number of this piece in the recording
    start: float | None = None  # seconds, of the sound; None: a failure
    end: float | None = None
    samples: int = 0  # of the parcel that are this piece's
    channel: int | None = None  # that was read alone, from 1
    warnings: tuple[str, ...] = ()
    error: str | None = None
    error_kind: str | None = None  # see `KINDS`


class Address(NamedTuple):
    """Which parcel: `number` counts those of a task."""

    shard: int
    task: int
    number: int
    is_last: bool  # of the task

    @property
    def name(self) -> str:
        """The name of the file of its rows, in the folder of the archive."""
        last = "-last" if self.is_last else ""
        return f"{staging(self.shard)}/task-{self.task:04}-parcel-{self.number:04}{last}.parquet"


@dataclass(frozen=True)
class Parcel:
    """Pieces and their samples one after the other."""

    address: Address
    pieces: list[Piece]
    next_position: tuple[int, int]  # where the parcel behind this one begins; of the last one (recordings of the task, 0)
    rate: int  # Hz, of the samples
    is_staged: bool = False  # an earlier run wrote its rows, so it comes without samples
    cpu_seconds: float = 0.0  # that decoding took

    def waveforms(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the (samples,) of each piece, none of a failure; views."""
        start = 0
        for piece in self.pieces:
            yield samples[start : start + piece.samples]
            start += piece.samples


@dataclass
class Counts:
    """What was done; adds up."""

    recordings: int = 0
    seconds: float = 0.0  # of sound
    failures: Counter[str] = field(default_factory=Counter)  # by kind
    warnings: int = 0
    staged: int = 0  # recordings that an earlier run did
    decode_seconds: float = 0.0  # CPU time
    network_seconds: float = 0.0
    write_seconds: float = 0.0

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def counts(parcel: Parcel) -> Counts:
    """Count the pieces of a parcel; a recording counts where it begins."""
    return Counts(
        recordings=sum(piece.position[1] == 0 for piece in parcel.pieces),
        seconds=sum(piece.samples for piece in parcel.pieces) / parcel.rate,
        failures=Counter(piece.error_kind for piece in parcel.pieces if piece.error is not None),
        warnings=sum(len(piece.warnings) for piece in parcel.pieces),
        decode_seconds=parcel.cpu_seconds,
    )


def cut_parts(blocks: Iterable[np.ndarray], length: int, hop: int, shortest: int) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yield (first sample, samples, whether it is the last) of parts of `length` samples, one every `hop`.

    A part begins only where at least `shortest` samples are left; what is left otherwise belongs to the part before it.
    """
    held: list[np.ndarray] = []
    first = size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        while size >= max(length, hop + shortest):
            samples = np.concatenate(held)
            yield first, samples[:length], False
            held, first, size = [samples[hop:]], first + hop, size - hop
    yield first, np.concatenate(held), True


def staging(shard: int) -> str:
    """Return the name of the folder of a shard's parcels."""
    return f"{STAGING}/shard-{shard:06}"
