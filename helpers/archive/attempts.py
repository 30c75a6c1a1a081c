"""How often workers began what is not done: what ended its worker several times is given up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasets.decoding.errors import CrashError

if TYPE_CHECKING:
    from helpers.archive.engine import GivenUp
    from helpers.archive.inputs import Entry

ATTEMPTS = 3  # to read a recording or compute a parcel, before it is given up: it may be what ends the worker


class Attempts:
    """How often workers began tasks, recordings and parcels that are not done."""

    def __init__(self) -> None:
        self._begun: Counter[Any] = Counter()

    def begin(self, what: Any) -> int:
        """Return the number of this attempt, from 1."""
        self._begun[what] += 1
        return self._begun[what]

    def end(self, what: Any) -> None:
        self._begun.pop(what, None)


class SharedAttempts:
    """`Attempts` that all workers share: an actor of Ray holds them."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, what: Any) -> int:
        import ray

        return ray.get(self._actor.begin.remote(what))

    def end(self, what: Any) -> None:
        self._actor.end.remote(what)


def recordings_given_up(attempts: Attempts | SharedAttempts, task: tuple[int, int], entries: Sequence[Entry]) -> GivenUp:
    """Return what counts how often each recording of a task was begun and not read to its end."""
    before: tuple[int, ...] | None = None  # the recording that was just read

    def given_up(index: int) -> CrashError | None:
        nonlocal before
        if before is not None:
            attempts.end(before)
        before = (*task, index)
        if attempts.begin(before) <= ATTEMPTS:
            return None
        before = None  # its count stays
        return CrashError(f"{entries[index].source}: reading it ended the worker {ATTEMPTS} times; leave it out")

    return given_up
