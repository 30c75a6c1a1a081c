"""Clips of a parquet file, in the layout of the Hugging Face Hub's audio data sets.

A row is a clip. Columns: `video_id` (also youtube_id, ytid, id, key; else the file name in audio.path), `audio` (a struct of
`bytes` and `path`, or bytes alone), and labels (see `datasets.shards.clips`).
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.shards.clips import ID_KEYS, LABEL_KEYS, ShardClip, ShardError, clip_key
from datasets.shards.parquet_pages import Unsupported, find_values, unpacked_sizes
from datasets.shards.stored import CODECS, MAX_BYTES, Stored

MAX_LABEL_BYTES = 2**26  # of a column of labels or names, in a row group
MAX_ROWS = 2**20  # of a row group
# What damaged bytes raise here and in pyarrow, whose errors are ValueErrors.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, MemoryError, struct.error)
_SPELLINGS = {"UNCOMPRESSED": "none", "SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd", "LZ4": "lz4_raw"}


def read_parquet(path: Path) -> Iterator[ShardClip]:
    """Yield the clips of a file, row group by row group. Raises ShardError for another layout, for damage and without pyarrow."""
    parquet = _import_parquet()
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise ShardError(f"{path} cannot be read as parquet ({error}); fetch it again") from error
    with file:
        columns = {file.schema.column(index).path: index for index in range(len(file.schema))}
        audio = next((index for name, index in columns.items() if name in ("audio.bytes", "audio")), None)
        if audio is None:
            raise ShardError(
                f"{path} has no column audio (of bytes, or of bytes and path); it has {', '.join(file.schema_arrow.names)}"
            )
        wanted = [name for name in file.schema_arrow.names if name in (*ID_KEYS, *LABEL_KEYS)]
        wanted += ["audio.path"] if "audio.path" in columns else []
        for group in range(file.num_row_groups):
            try:
                if (count := file.metadata.row_group(group).num_rows) > MAX_ROWS:
                    raise ValueError(f"{count} rows, more than {MAX_ROWS}")
                places = list(_places(file, path, group, audio))
                for name, index in columns.items():
                    if any(f"{name}.".startswith(f"{one}.") for one in wanted):
                        _check_unpacked(_chunk(path, file.metadata.row_group(group).column(index)), MAX_LABEL_BYTES)
                rows = file.read_row_group(group, columns=wanted).to_pylist()
            except _DAMAGE as error:
                raise ShardError(f"{path}, row group {group}, is damaged ({error}); fetch the file again") from error
            if len(rows) != len(places):
                raise ShardError(f"{path} has {len(places)} recordings for {len(rows)} rows in row group {group}; fetch it again")
            for row, place in zip(rows, places, strict=True):
                inner = (row.pop("audio", None) or {}).get("path") or ""
                yield ShardClip(clip_key(row, inner), row, place)


def _places(file: Any, path: Path, group: int, column: int) -> Iterator[Stored | None]:
    """The place of each row's recording in the column numbered `column` of row group `group`."""
    info = file.metadata.row_group(group).column(column)
    schema = file.schema.column(column)
    codec = _SPELLINGS.get(info.compression)
    chunk = _chunk(path, info)
    if codec is None or schema.max_repetition_level:
        _check_unpacked(chunk, MAX_BYTES)
        yield from _rows(path, group, info.num_values)
        return
    try:
        values = list(find_values(chunk, codec, schema.max_definition_level, info.num_values))
    except Unsupported:
        values = None
    if values is None:
        _check_unpacked(chunk, MAX_BYTES)
        yield from _rows(path, group, info.num_values)
        return
    for value in values:
        yield value and Stored(path, _start(info) + value.offset, value.stored, CODECS.index(value.codec), *value[3:])


def _start(info: Any) -> int:
    """Where a column of a row group begins in the file."""
    return min(filter(None, (info.dictionary_page_offset, info.data_page_offset)))


def _chunk(path: Path, info: Any) -> memoryview:
    """A column of a row group, mapped: no more than it stays in memory, until the last reference goes."""
    begin = _start(info) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    skip = _start(info) - begin
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), skip + info.total_compressed_size, access=mmap.ACCESS_READ, offset=begin)
    return memoryview(mapped)[skip:]


def _check_unpacked(chunk: memoryview, most: int) -> None:
    """Raise ValueError for a column that is larger than `most` bytes when pyarrow has decompressed it."""
    size = sum(unpacked_sizes(chunk))
    if size > most:
        raise ValueError(f"a column decompresses to {size} bytes, more than {most}")


def _rows(path: Path, group: int, count: int) -> Iterator[Stored]:
    """Places for pyarrow."""
    return (Stored(path, group, 0, CODECS.index("arrow"), 0, row, 0) for row in range(count))


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ShardError("reading parquet needs pyarrow; pip install pyarrow") from error
    return parquet
