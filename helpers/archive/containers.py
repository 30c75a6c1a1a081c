"""Recordings in tars and Parquet files: where they lie there, so that each is read without the others."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from datasets.audio import SUFFIXES, AudioError
from datasets.shards.clips import ID_KEYS, ShardError, clip_key
from datasets.shards.parquet import read_parquet
from datasets.shards.stored import CODECS, MAX_BYTES
from helpers.archive.storage import is_remote, local_path, opened

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

# What damaged bytes make tarfile raise.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError, MemoryError, RecursionError)


class Member(NamedTuple):
    """A recording in a tar."""

    name: str
    offset: int  # bytes
    size: int


def tar_members(file: BinaryIO, name: str) -> Iterator[Member]:
    """Yield the recordings of an uncompressed tar, in their order. Nothing is extracted; links and hidden files do not count.

    Raises ShardError for what is no tar and, behind the last recording, for a tar that is damaged there.
    """
    count = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # it would keep them all
                base = PurePosixPath(member.name).name
                if member.isreg() and not member.issparse() and not base.startswith(".") and _suffix(base) in SUFFIXES:
                    _check_end(file, member)
                    count += 1
                    yield Member(member.name, member.offset_data, member.size)
            file.seek(tar.offset)  # tarfile takes a damaged header for the end
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except _DAMAGE as error:
        if not count:
            raise ShardError(f"{name} cannot be read as an uncompressed tar ({error}); fetch it again, or decompress it") from error
        raise ShardError(f"{name} is damaged behind its first {count} recordings ({error}); fetch it again") from error


def _check_end(file: BinaryIO, member: tarfile.TarInfo) -> None:
    """Raise ReadError where the tar ends before the member does."""
    if member.size:
        file.seek(member.offset_data + member.size - 1)
        if not file.read(1):
            raise tarfile.ReadError(f"it ends in {member.name}")


def rows_of(address: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name of each row of a Parquet file and the numbers of its `datasets.shards.stored.Stored`, without its path.

    The name is an id, else that in audio.path without its suffix, else the row's number. Rows without a recording are left out.
    Raises ShardError.
    """
    rows = _remote_rows(address) if is_remote(address) else _local_rows(address)
    for number, (name, stored) in enumerate(rows):
        if stored is not None:
            yield name or f"row-{number:06}", stored


def _local_rows(address: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    for clip in read_parquet(local_path(address)):
        yield clip.key, None if clip.stored is None else tuple(clip.stored)[1:]


def _remote_rows(address: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Names alone are read; a recording is read with its row group."""
    from pyarrow import ArrowException, parquet

    try:
        with opened(address) as content, parquet.ParquetFile(content) as file:
            columns = [file.schema.column(index).path for index in range(len(file.schema))]
            audio = next((index for index, name in enumerate(columns) if name in ("audio.bytes", "audio")), None)
            if audio is None:
                raise ShardError(f"{address} has no column audio (of bytes, or of bytes and path); it has {', '.join(columns)}")
            named = [name for name in columns if name == "audio.path" or name in ID_KEYS]
            for group in range(file.num_row_groups):
                info = file.metadata.row_group(group)
                if (size := info.column(audio).total_uncompressed_size) > MAX_BYTES:
                    raise ShardError(f"{address} has a row group of {size / 2**30:.1f} GiB; write it with smaller ones")
                names = _names(file.read_row_group(group, columns=named).to_pylist(), info.num_rows)
                statistics = info.column(audio).statistics
                missing = set()
                if statistics is not None and statistics.has_null_count and statistics.null_count:
                    missing = {row for row, content in enumerate(_contents(file, group)) if not content.is_valid}
                for row, name in enumerate(names):
                    place = (group, 0, CODECS.index("arrow"), 0, row, size // info.num_rows)
                    yield name, None if row in missing else place
    except (ArrowException, ValueError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{address} cannot be read as parquet ({error}); fetch it again") from error


def row_content(address: str, group: int, row: int) -> bytes:
    """Return a recording of a remote Parquet file. Raises OSError and AudioError."""
    content = _row_group(address, group)[row].as_py()
    if content is None:
        raise AudioError(f"row {row} of row group {group} of {address} holds no recording")
    return content


@lru_cache(maxsize=1)
def _row_group(address: str, group: int) -> pa.Array:
    """The recordings of a row group; those of a task follow each other."""
    from pyarrow import ArrowException, parquet

    try:
        with opened(address) as content, parquet.ParquetFile(content) as file:
            return _contents(file, group)
    except (ArrowException, ValueError) as error:
        raise AudioError(f"row group {group} of {address} cannot be read ({error}); fetch it again") from error


def _contents(file: ParquetFile, group: int) -> pa.Array:
    column = file.read_row_group(group, columns=["audio"]).column("audio").combine_chunks()
    return column.field("bytes") if hasattr(column, "field") else column


def _names(rows: list[dict[str, Any]], count: int) -> list[str]:
    found = []
    for row in rows or count * [{}]:
        found.append(clip_key(row, (row.get("audio") or {}).get("path") or ""))
    return found


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
