"""Faults at the n-th place where a piece of work changes the disk: a write, a flush, a rename, a new or a removed file."""

from __future__ import annotations

import builtins
import errno
import io
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import pytest

FULL, KILL = "full disk", "kill"
GROWING = {"write", "mkdir", "fsync", "h5py"}  # what fails on a full disk; names change and files go as ever
REAL_OPEN = io.open


class Places:
    """Counts the places; at the one numbered `at` the disk gets full, and stays so, or the process is killed."""

    def __init__(self, at: int | None, fault: str) -> None:
        self.at, self.fault = at, fault
        self.process = os.getpid()  # forks, which read damaged files, are left alone
        self.kinds: list[str] = []

    @property
    def count(self) -> int:
        return len(self.kinds)

    def different(self, every: int) -> list[int]:
        """Numbers of the places, of a row of writes to the same file the first, the last and each `every`-th alone."""
        around = zip(["", *self.kinds], self.kinds, [*self.kinds[1:], ""], strict=False)
        return [at for at, kinds in enumerate(around, 1) if kinds != ("write",) * 3 or at % every == 0]

    def reach(self, kind: str, half: Callable[[], object] = lambda: None) -> None:
        """`half` does half of what is to be done there."""
        if os.getpid() != self.process:
            return
        self.kinds.append(kind)
        if self.at is None or self.count < self.at:
            return
        if self.fault == KILL:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in GROWING:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FaultyFile(io.FileIO):
    places: Places

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self.places.reach("write", lambda: super(FaultyFile, self).write(view[: len(view) // 2]))
        return super().write(view)


@contextmanager
def injected(at: int | None, fault: str) -> Iterator[Places]:
    """Count, and let the work fail at place `at`: in Python's files, names and folders and in calls of h5py, not in C code."""
    places = Places(at, fault)
    faulty = type("Faulty", (FaultyFile,), {"places": places})

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
        closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+"):
            return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = faulty(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    def patched(patch: pytest.MonkeyPatch, owner: Any, name: str, kind: str) -> None:
        work = getattr(owner, name)

        def reached(*args: Any, **options: Any) -> Any:
            places.reach(kind)
            return work(*args, **options)

        patch.setattr(owner, name, reached)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((builtins, "open"), (io, "open"), (tarfile, "bltn_open")):
            patch.setattr(owner, name, opened)
        for name, kind in (("replace", "name"), ("rename", "name"), ("unlink", "name"), ("mkdir", "mkdir"), ("fsync", "fsync")):
            patched(patch, os, name, kind)
        for owner, name in ((h5py.File, "flush"), (h5py.Dataset, "resize"), (h5py.Dataset, "__setitem__")):
            patched(patch, owner, name, "h5py")
        yield places


def in_a_process(work: Callable[[], object]) -> int:
    """Run a piece of work in a fork and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    process.kill()
    return process.exitcode
