"""Parquet files of an archive: written whole, read some thousand rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from helpers.archive.storage import Folder, opened
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile, ParquetWriter

BATCH_ROWS = 4096
GROUP_BYTES = 1 << 25  # of rows in memory, from which on they become a row group


@contextlib.contextmanager
def written(folder: Folder, name: str, schema: pa.Schema) -> Iterator[ParquetWriter]:
    """Yield a writer; the file has its name when it is complete. Raises OSError.

    Numbers with a fraction are split by bytes, which packs the zeros that rounding leaves; all other columns have dictionaries.
    """
    from pyarrow import parquet, types

    floats, others = [], []
    for field in schema:
        inner = field.type.value_type if types.is_nested(field.type) else field.type
        column = f"{field.name}.list.element" if types.is_nested(field.type) else field.name
        (floats if types.is_floating(inner) else others).append(column)
    with (
        folder.writing(name) as path,
        parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=others, use_byte_stream_split=floats) as writer,
    ):
        yield writer


def write_batches(writer: ParquetWriter, batches: Iterator[pa.RecordBatch]) -> int:
    """Write rows in row groups of about `GROUP_BYTES`; return how many."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if size >= GROUP_BYTES:
            writer.write_table(table := pa.Table.from_batches(held), row_group_size=table.num_rows)
            held, size = [], 0
    if held:
        writer.write_table(table := pa.Table.from_batches(held), row_group_size=max(1, table.num_rows))
    return rows


def read_batches(address: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file. Raises OSError, and `UserError` for damage."""
    with opened(address) as content, _opened(content, address) as file:
        try:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)
        except (ValueError, EOFError) as error:  # of pyarrow
            raise damage(address, error) from error


def read_schema(address: str) -> pa.Schema:
    """Return the columns of a file. Raises OSError, and `UserError` for damage."""
    with opened(address) as content, _opened(content, address) as file:
        return file.schema_arrow


def damage(address: str, error: Exception) -> UserError:
    return UserError(f"{address} is damaged ({error}); remove it and start the command again")


def _opened(content: BinaryIO, address: str) -> ParquetFile:
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(content)
    except ValueError as error:
        raise damage(address, error) from error
