"""Folders of this machine and of object stores, and the names of a list, file by file in the order of their paths."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from datasets.audio_folders import Problem, list_recordings
from helpers.archive.storage import Status, errors_name, file_system, is_remote, remote_status, status
from models.command import printable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

REQUESTS = 32  # at a time, about the files of a list


class Notes(Protocol):
    problems: list[str]
    skipped: Counter[str]


def local_files(folder: str, notes: Notes, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yield the files below a folder that have one of the suffixes, see `datasets.audio_folders.list_recordings`."""
    found: list[Problem] = []
    for path in list_recordings(folder, problems=found, skipped=notes.skipped, suffixes=suffixes):
        yield path
        _note(found, notes)
    _note(found, notes)


def remote_files(address: str, notes: Notes, suffixes: Sequence[str]) -> Iterator[tuple[str, Status]] | None:
    """Return the name below a folder and the status of each file that has one of the suffixes; None for what is no folder.

    One folder is held at a time. Names that begin with a dot do not count. Raises OSError.
    """
    fs, root = file_system(address)
    with errors_name(address):
        if not fs.isdir(root):
            return None
    return _below(fs, root.rstrip("/"), "", address, notes, suffixes)


def with_status(names: Iterable[str], root: str) -> Iterator[tuple[str, Status | None]]:
    """Yield names of a list in their order, with the status of the remote ones, which is asked for in advance."""
    with ThreadPoolExecutor(REQUESTS) as pool:  # starts threads as they are needed
        remaining = iter(names)
        waiting: deque[tuple[str, Any]] = deque()
        while True:
            for name in islice(remaining, 2 * REQUESTS - len(waiting)):
                where = joined(name, root)
                waiting.append((name, pool.submit(_status_or_none, where) if is_remote(where) else None))
            if not waiting:
                return
            name, asked = waiting.popleft()
            yield name, asked and asked.result()


def joined(name: str, root: str) -> str:
    """Return the address of a name in a list, which is relative to the list's folder if it is relative."""
    if "://" in name or name.startswith("/"):
        return name.removeprefix("file://")
    return f"{root}/{name}" if is_remote(root) else os.path.join(root, name)


def _status_or_none(where: str) -> Status | None:
    try:
        return status(where)
    except OSError:
        return None  # asked again, where the error has a place


def _note(found: list[Problem], notes: Notes) -> None:
    notes.problems += [printable(problem) for problem in found if not problem.is_harmless]
    found.clear()


def _below(
    fs: AbstractFileSystem, root: str, inner: str, address: str, notes: Notes, suffixes: Sequence[str]
) -> Iterator[tuple[str, Status]]:
    folder = f"{root}/{inner}".rstrip("/")
    try:
        with errors_name(address):
            entries = fs.ls(folder, detail=True)
    except OSError as error:
        notes.problems.append(printable(f"{address}/{inner} cannot be read ({error})"))
        return
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        path = entry["name"].rstrip("/")
        name = path.removeprefix(f"{folder}/")
        if name and "/" not in name and not name.startswith("."):  # nothing outside, whatever a server says
            found[name] = entry
    del entries
    for name in sorted(found):
        entry, path = found[name], f"{inner}/{name}" if inner else name
        suffix = PurePosixPath(name).suffix.lower()
        if entry["type"] == "directory":
            yield from _below(fs, root, path, address, notes, suffixes)
        elif suffix not in suffixes:
            notes.skipped[suffix] += 1
        else:
            yield path, remote_status(entry) if entry.get("size") is not None else _asked(fs, entry["name"])


def _asked(fs: AbstractFileSystem, path: str) -> Status:
    """Ask about a file whose size a listing does not say, as that of a web server."""
    try:
        with errors_name(path):
            return remote_status(fs.info(path))
    except OSError:
        return Status(0, "")
