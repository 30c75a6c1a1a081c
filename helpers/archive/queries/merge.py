"""Several archives of the same models as one, with the parts of long recordings joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from helpers.archive.database import quoted
from helpers.archive.output import DATA, MANIFEST, Output
from helpers.archive.parquet_files import write_batches, written
from helpers.archive.plan import Plan
from helpers.archive.queries.joining import joined
from helpers.archive.queries.reading import Archive, connect
from models.errors import UserError
from models.files import replacing_folder

if TYPE_CHECKING:
    import pyarrow as pa


def merge(archives: Sequence[Archive], output: Path, *, prefix: bool = False) -> tuple[int, int]:
    """Write several archives as one, which appears when it is complete; return the numbers of its shards and rows.

    `prefix` puts the name of its archive's folder in front of each recording. Raises UserError where two archives have a recording
    of the same name, and for an output that exists.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists; give a new folder for the merged archive")
    fronts = [f"{PurePosixPath(archive.address).name}/" if prefix else "" for archive in archives]
    _refuse_same_names(archives, fronts)
    shards = rows = 0
    with replacing_folder(output) as folder:
        merged, plan = Output(folder), Plan(folder)
        for archive, front in zip(archives, fronts, strict=True):
            planned = Plan(archive.address)
            for shard in archive.shards:
                with written(merged.folder, f"{DATA}/shard-{shards:06}.parquet", archive.schema) as writer:
                    tables = (_renamed(table, front) for table in joined(archive, shard))
                    rows += write_batches(writer, (batch for table in tables for batch in table.to_batches()))
                tasks = range(planned.tasks(shard)) if shard < planned.num_shards else ()
                entries = (entry for task in tasks for entry in planned.recordings(shard, task))
                plan.extend((entry._replace(source=front + entry.source) for entry in entries), shard_recordings=2**31)
                shards += 1
        merged.write_failed()
        counts = {"shards": shards, "recordings": plan.num_recordings, "merged": [archive.address for archive in archives]}
        merged.write_json(MANIFEST, archives[0].manifest | counts)
    return shards, rows


def _refuse_same_names(archives: Sequence[Archive], fronts: Sequence[str]) -> None:
    sources = " UNION ALL ".join(
        f"SELECT DISTINCT {quoted(archive.address)} AS output, {quoted(front)} || source AS source FROM {archive.rows()}"
        for archive, front in zip(archives, fronts, strict=True)
    )
    query = (
        f"SELECT source, list(output ORDER BY output) FROM ({sources}) GROUP BY source HAVING count(*) > 1 ORDER BY source LIMIT 1"
    )
    with connect(archives) as connection:
        found = connection.execute(query).fetchone()
    if found:
        source, outputs = found
        advice = "leave one of them out" if any(fronts) else "give --prefix to tell them apart, or leave one out"
        raise UserError(f"{' and '.join(outputs[:2])} both have a recording {source}; {advice}")


def _renamed(table: pa.Table, front: str) -> pa.Table:
    """Put a text in front of each source."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sources = pc.binary_join_element_wise(pa.scalar(front), table["source"], "")
    return table.set_column(table.schema.get_field_index("source"), table.schema.field("source"), sources)
