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
from datasets.shards.parquet_pages import Unsupported, find_values
from datasets.shards.stored import CODECS, Stored

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
                places = list(_places(file, path, group, audio))
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
    start = min(filter(None, (info.dictionary_page_offset, info.data_page_offset)))
    if codec is None or schema.max_repetition_level:
        yield from _rows(path, group, info.num_values)
        return
    # A row group at a time is mapped, so that no more than it stays in memory; it is unmapped with the last reference.
    first_page = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    length = start - first_page + info.total_compressed_size
    with open(path, "rb") as raw:
        chunk = memoryview(mmap.mmap(raw.fileno(), length, access=mmap.ACCESS_READ, offset=first_page))[start - first_page :]
    try:
        values = list(find_values(chunk, codec, schema.max_definition_level, info.num_values))
    except Unsupported:
        values = None
    if values is None:
        yield from _rows(path, group, info.num_values)
        return
    for value in values:
        yield value and Stored(path, start + value.offset, value.stored, CODECS.index(value.codec), *value[3:])


def _rows(path: Path, group: int, count: int) -> Iterator[Stored]:
    """Places for pyarrow."""
    return (Stored(path, group, 0, CODECS.index("arrow"), 0, row, 0) for row in range(count))


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ShardError("reading parquet needs pyarrow; pip install pyarrow") from error
    return parquet
