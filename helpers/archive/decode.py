"""The first step: the recordings of a task are read, resampled and put into parcels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.audio import AudioError
from datasets.decoding.errors import CrashError, HangError
from datasets.decoding.isolated import IS_AVAILABLE, Decoders
from helpers.archive.inputs import open_entry
from helpers.archive.parcels import PARCEL_SECONDS, Address, Parcel, Piece, cut_parts
from helpers.tagger.reading import UNUSABLE, ReadOptions, Recording, open_recording

if TYPE_CHECKING:
    from helpers.archive.engine import GivenUp, Staged
    from helpers.archive.inputs import Entry

KINDS = {CrashError: "crash", HangError: "hang", AudioError: "audio", FileNotFoundError: "missing", OSError: "input"}


@dataclass(frozen=True)
class Reading:
    """How recordings are read, the same for all."""

    rate: int  # Hz, of the network
    options: ReadOptions = ReadOptions()
    per_channel: bool = False
    time_limit: float | None = None  # see `datasets.decoding.isolated.Decoders`; None: in this process
    part: int | None = None  # of long recordings, see `cut_parts`, in samples; None: they are not cut
    part_hop: int = 0
    shortest_part: int = 0


class TaskDecoder:
    """Decodes tasks, one after the other; holds its decoding process in between."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._stack = ExitStack()
        uses_processes = reading.time_limit is not None and IS_AVAILABLE
        self._decoders = self._stack.enter_context(Decoders(reading.time_limit)) if uses_processes else None

    def close(self) -> None:
        self._stack.close()

    def __call__(
        self,
        shard: int,
        task: int,
        entries: Sequence[Entry],
        staged: Staged = lambda *_: False,
        given_up: GivenUp = lambda _: None,
    ) -> Iterator[tuple[Parcel, np.ndarray]]:
        """Yield the parcels of a task with their samples; those that are `staged`, by number and pieces, with none.

        `given_up` returns why a recording, by its number, is a failure that is not read.
        """
        number, cpu = 0, cpu_seconds()
        held: list[tuple[Piece, np.ndarray]] = []
        limit = PARCEL_SECONDS * self._reading.rate

        def parcel(next_position: tuple[int, int], is_last: bool) -> tuple[Parcel, np.ndarray]:
            nonlocal number, cpu
            pieces = [piece for piece, _ in held]
            is_staged = staged(number, pieces)
            samples = np.zeros(0, np.float32) if is_staged or not held else np.concatenate([samples for _, samples in held])
            now = cpu_seconds()
            address = Address(shard, task, number, is_last)
            made = Parcel(address, pieces, next_position, self._reading.rate, is_staged, now - cpu)
            number, cpu = number + 1, now
            held.clear()
            return made, samples

        for index, entry in enumerate(entries):
            for piece, samples in self._pieces(index, entry, given_up):
                if held and sum(len(other) for _, other in held) + len(samples) > limit:
                    yield parcel(piece.position, False)
                held.append((piece, samples))
        yield parcel((len(entries), 0), True)

    def _pieces(self, index: int, entry: Entry, given_up: GivenUp) -> Iterator[tuple[Piece, np.ndarray]]:
        """Yield the pieces of a recording; a failure follows what came before the damage."""
        count = 0
        try:
            if error := given_up(index):
                raise error
            for piece, samples in self._read(entry):
                yield replace(piece, position=(index, count)), samples
                count += 1
        except UNUSABLE as error:
            failed = Piece(entry.source, (index, count), error=" ".join(str(error).split()), error_kind=kind(error))
            yield failed, np.zeros(0, np.float32)

    def _read(self, entry: Entry) -> Iterator[tuple[Piece, np.ndarray]]:
        reading = self._reading
        source = open_entry(entry)
        if not reading.per_channel:
            yield from self._parts(entry, self._open(source, entry, reading.options))
            return
        first = self._open(source, entry, replace(reading.options, channel=1))
        yield from self._parts(entry, first)
        for channel in range(2, first.channels + 1):
            yield from self._parts(entry, self._open(source, entry, replace(reading.options, channel=channel)))

    def _open(self, source: bytes | str | Path, entry: Entry, options: ReadOptions) -> Recording:
        return open_recording(source, None, self._reading.rate, options, entry.source, self._decoders)

    def _parts(self, entry: Entry, recording: Recording) -> Iterator[tuple[Piece, np.ndarray]]:
        reading = self._reading
        if reading.part is None:
            parts = iter([(0, np.concatenate(list(recording.blocks)), True)])
        else:
            parts = cut_parts(recording.blocks, reading.part, reading.part_hop, reading.shortest_part)
        for first, samples, is_last in parts:
            start = recording.start + first / reading.rate
            end = recording.end if is_last else start + len(samples) / reading.rate
            warnings = tuple(recording.warnings) if is_last else ()
            yield Piece(entry.source, (0, 0), start, end, len(samples), recording.channel, warnings), samples


def kind(error: Exception) -> str:
    """Return what kind of failure an error is: crash, hang, audio, missing, input or argument."""
    return next((name for known, name in KINDS.items() if isinstance(error, known)), "argument")


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children; that of those that live counts where there is a /proc."""
    ticks = 0
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            for child in path.read_text().split():
                ticks += sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return sum(os.times()[:4]) + (ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0)
