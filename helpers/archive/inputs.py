"""The recordings that an input names: a folder, a list, tars, Parquet files, or one file; here or at an address that fsspec knows.

| input | recordings |
|---|---|
| folder | those below it, by suffix, see `datasets.audio_folders`; tars and Parquet files below it are opened |
| .txt | a path or an address in each line |
| .csv, .tsv | a header with one of `COLUMNS`, a recording in each row |
| .jsonl | an object with one of `COLUMNS`, or a string, in each line |
| .tar | its members, by suffix, read where they lie in the tar |
| .parquet | its rows, from a column audio (bytes, or bytes and path) |
| another file | itself |

Relative paths in a list are below its folder. Everything is listed as it is read, in an order that is always the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from datasets.audio import SUFFIXES, AudioError
from datasets.audio_folders import describe_skipped
from datasets.shards.clips import ShardError
from datasets.shards.stored import MAX_BYTES, Stored
from helpers.archive import listing
from helpers.archive.containers import row_content, rows_of, tar_members
from helpers.archive.lists import LIST_SUFFIXES, listed_names
from helpers.archive.storage import Status, is_remote, local_path, opened, read, status
from helpers.tagger.embedding_files import escaped
from models.command import printable
from models.errors import UserError

CONTAINERS = (".tar", ".parquet")


class Entry(NamedTuple):
    """A recording of an input."""

    source: str  # its name in results: the path below the input, or as a list has it; then the member
    address: str  # of the file, absolute
    member: str | None = None  # of a tar, or the row of a Parquet file
    offset: int | None = None  # bytes, of a member of a tar
    size: int = 0  # bytes; 0 where it is not known
    stamp: str = ""  # of the file: it changes with the content
    stored: tuple[int, ...] | None = None  # of a row of a Parquet file: the numbers of `datasets.shards.stored.Stored`


@dataclass
class Findings:
    """What was found on the way that is no recording; grows while an input is listed."""

    problems: list[str] = field(default_factory=list)  # what cannot be listed; each names its file
    skipped: Counter[str] = field(default_factory=Counter)  # other files, by suffix

    def describe_skipped(self) -> str:
        return describe_skipped(self.skipped)


def list_inputs(text: str, findings: Findings | None = None) -> Iterator[Entry]:
    """Yield the recordings of an input, in an order that is always the same. A damaged file is a problem, and the next one follows.

    Raises `UserError` and OSError for an input that is not there, and for one without any recording, at the first `next`.
    """
    findings = findings or Findings()
    count = 0
    for count, entry in enumerate(_all(text, findings), 1):  # noqa: B007
        yield entry
    if not count:
        found = "; ".join(filter(None, [*findings.problems[:3], findings.describe_skipped()]))
        raise UserError(f"{printable(text)} holds no recordings{found and ': '}{found}")


def open_entry(entry: Entry) -> str | bytes:
    """Return what `datasets.sound.open_sound` opens: the path of a file of this machine, or a content.

    Raises OSError, and AudioError for what is too large to be held.
    """
    if entry.stored is not None:
        if not is_remote(entry.address):
            return Stored(local_path(entry.address), *entry.stored).read()
        return row_content(entry.address, entry.stored[0], entry.stored[4])
    if entry.offset is None and not is_remote(entry.address):
        return os.fspath(local_path(entry.address))
    if entry.size > MAX_BYTES:
        raise AudioError(f"{entry.source} takes {entry.size / 2**30:.1f} GiB; up to {MAX_BYTES / 2**30:.0f} GiB are read")
    if entry.offset is None:
        return read(entry.address)
    return read(entry.address, entry.offset, entry.offset + entry.size) if entry.size else b""


def _all(text: str, findings: Findings) -> Iterator[Entry]:
    if not is_remote(text):
        text = os.fspath(local_path(text))
        if os.path.isdir(text):
            for path in listing.local_files(text, findings, (*SUFFIXES, *CONTAINERS)):
                yield from _opened(path.relative_to(text).as_posix(), os.fspath(path), findings)
            return
    elif text.endswith("/") or _suffix(text) not in (*SUFFIXES, *CONTAINERS, *LIST_SUFFIXES):  # a web server would send a file
        if files := listing.remote_files(text, findings, (*SUFFIXES, *CONTAINERS)):
            for name, found in files:
                yield from _opened(name, f"{text.rstrip('/')}/{name}", findings, found)
            return
    if (suffix := _suffix(text)) in LIST_SUFFIXES:
        root = _path(text).rpartition("/")[0] or "/"
        names = listed_names(text, suffix, findings.problems)
        for name, found in listing.with_status(names, root):
            yield from _opened(name, listing.joined(name, root), findings, found)
        return
    yield from _opened(PurePosixPath(text).name, text, findings, status(text))


def _opened(source: str, address: str, findings: Findings, found: Status | None = None) -> Iterator[Entry]:
    """Yield a recording, or those in a container; `found` None: to be looked up."""
    suffix = _suffix(address)
    try:
        found = found or status(address)
        if suffix == ".tar":
            yield from _members(source, address, found.stamp)
        elif suffix == ".parquet":
            yield from _rows(source, address, found.stamp)
        elif not is_remote(address) and os.path.isdir(local_path(address)):
            findings.problems.append(f"{printable(address)} is a folder; give it as an input of its own")
        else:
            yield Entry(escaped(source), address, None, None, *found)
    except FileNotFoundError:
        yield Entry(escaped(source), address)  # its failure is a row, as that of a file that cannot be decoded
    except (ShardError, OSError) as error:
        findings.problems.append(printable(f"{error}"))


def _members(source: str, address: str, stamp: str) -> Iterator[Entry]:
    with opened(address) as file:
        members = ((member.name, member) for member in tar_members(file, address))
        for name, member in _distinct(members):
            yield Entry(escaped(f"{source}/{name}"), address, member.name, member.offset, member.size, stamp)


def _rows(source: str, address: str, stamp: str) -> Iterator[Entry]:
    for name, stored in _distinct(rows_of(address)):
        yield Entry(escaped(f"{source}/{name}"), address, name, None, stored[5], stamp, stored)


def _distinct(named: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    """Number names that are there again: "a.wav", "a.wav#2"."""
    seen: Counter[str] = Counter()
    for name, value in named:
        seen[name] += 1
        while (given := name if seen[name] == 1 else f"{name}#{seen[name]}") != name and given in seen:
            seen[name] += 1
        yield given, value


def _suffix(address: str) -> str:
    return PurePosixPath(_path(address)).suffix.lower()


def _path(address: str) -> str:
    """Return an address without the query of a web server's."""
    return address.partition("?")[0] if address.startswith(("http://", "https://")) else address
