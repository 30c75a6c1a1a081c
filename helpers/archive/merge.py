"""Several archives of the same models as one, with the parts of long recordings joined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from helpers.archive.joining import joined
from helpers.archive.reading import DATA, MANIFEST, Archive, connect, open_parquet, quoted
from models.errors import UserError
from models.files import replacing_folder, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa


def merge(archives: Sequence[Archive], output: Path, *, prefix: bool = False) -> dict[str, int]:
    """Write the rows of several archives as one archive, which appears when it is complete; return counts.

    `prefix` puts the name of its archive's folder in front of each recording. Raises UserError where two archives have a recording
    of the same name, and for an output that exists.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists; give a new folder for the merged archive")
    prefixes = [f"{PurePosixPath(archive.address).name}/" if prefix else "" for archive in archives]
    _refuse_same_names(archives, prefixes)
    counts = {"shards": 0, "rows": 0}
    with replacing_folder(output) as folder:
        (folder / DATA).mkdir()
        for archive, front in zip(archives, prefixes, strict=True):
            for file in archive.files:
                path = folder / DATA / f"shard-{counts['shards']:06}.parquet"
                with open_parquet(file) as parquet:
                    schema = parquet.schema_arrow  # its metadata hold the labels
                counts["rows"] += _write(path, schema, (_renamed(table, front) for table in joined(archive, file)))
                counts["shards"] += 1
        manifest = {**archives[0].manifest, "shards": counts["shards"], "merged": [archive.address for archive in archives]}
        write_bytes(folder / MANIFEST, json.dumps(manifest, indent=2).encode())
    return counts


def _refuse_same_names(archives: Sequence[Archive], prefixes: Sequence[str]) -> None:
    sources = " UNION ALL ".join(
        f"SELECT DISTINCT {quoted(archive.address)} AS output, {quoted(front)} || source AS source FROM {archive.rows()}"
        for archive, front in zip(archives, prefixes, strict=True)
    )
    query = (
        f"SELECT source, list(output ORDER BY output) FROM ({sources}) GROUP BY source HAVING count(*) > 1 ORDER BY source LIMIT 1"
    )
    with connect(archives) as connection:
        found = connection.execute(query).fetchone()
    if found:
        source, outputs = found
        raise UserError(
            f"{' and '.join(outputs[:2])} both have a recording {source}; give --prefix to tell them apart, or leave one out"
        )


def _renamed(table: pa.Table, front: str) -> pa.Table:
    """Put a text in front of each source."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sources = pc.binary_join_element_wise(pa.scalar(front), table["source"], "")
    return table.set_column(table.schema.get_field_index("source"), table.schema.field("source"), sources)


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    from pyarrow.parquet import ParquetWriter

    rows = 0
    with ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows
