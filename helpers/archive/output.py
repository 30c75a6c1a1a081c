"""The folder of an archive: rows of parcels in staging/, of whole shards in data/, failures, manifest and report.

Each file is complete under its name or not there, so that a process may end at any time; writing one again gives the same file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from helpers.archive.parcels import Address, staging
from helpers.archive.parquet_files import read_batches, read_schema, write_batches, written
from helpers.archive.plan import Plan
from helpers.archive.storage import Folder
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

DATA = "data"
FAILED, MANIFEST, REPORT = "failed.parquet", "manifest.json", "report.json"

_PARCEL = re.compile(r"task-(\d+)-parcel-(\d+)(-last)?\.parquet")


class Output:
    """An archive by its address. It is sent to workers."""

    def __init__(self, address: str | os.PathLike[str]) -> None:
        """`UserError` for an address that fsspec does not know."""
        self.folder = Folder(address)
        self.address = self.folder.address

    # Parcels

    def write_parcel(self, address: Address, table: pa.Table) -> None:
        """Write the rows of a parcel. Raises OSError."""
        with written(self.folder, address.name, table.schema) as writer:
            writer.write_table(table)

    def parcels_of(self, shard: int) -> set[Address]:
        """Return the parcels of a shard that are in staging/."""
        found = (_PARCEL.fullmatch(name) for name in self.folder.names(staging(shard)))
        return {Address(shard, int(match[1]), int(match[2]), bool(match[3])) for match in found if match}

    def sources(self, parcel: Address) -> list[str]:
        """Return the source of each row of a parcel in staging/. Raises FileNotFoundError."""
        batches = read_batches(self.folder.path(parcel.name), ["source"])
        return [source for batch in batches for source in batch["source"].to_pylist()]

    def remove_parcels(self, shard: int, task: int) -> None:
        """Remove the parcels of a task from staging/."""
        for parcel in self.parcels_of(shard):
            if parcel.task == task:
                self.folder.remove(parcel.name)

    # Shards

    def is_complete(self, shard: int) -> bool:
        return self.folder.exists(_data(shard))

    def complete(self) -> list[int]:
        """Return the shards that are complete, in their order."""
        found = (re.fullmatch(r"shard-(\d+)\.parquet", name) for name in self.folder.names(DATA))
        return sorted(int(match[1]) for match in found if match)

    def compact(self, shard: int) -> int:
        """Make one file of the parcels of a shard, in the order of the plan; return how many rows. Nothing to do is no error.

        Parcels are read one after the other. Raises `UserError` where one is missing or damaged, and OSError.
        """
        if self.is_complete(shard):
            self.folder.remove(staging(shard))  # a process ended in between
            return 0
        parcels = sorted(self.parcels_of(shard), key=lambda parcel: (parcel.task, parcel.number))
        self._check_all(shard, parcels)
        addresses = [self.folder.path(parcel.name) for parcel in parcels]
        batches = (batch for address in addresses for batch in read_batches(address))
        with written(self.folder, _data(shard), read_schema(addresses[0])) as writer:
            rows = write_batches(writer, batches)
        self.folder.remove(staging(shard))
        return rows

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of complete shards, in the order of the plan; some thousand at a time. Raises `UserError` and OSError."""
        for shard in self.complete():
            yield from read_batches(self.folder.path(_data(shard)), columns)

    def _check_all(self, shard: int, parcels: Sequence[Address]) -> None:
        expected = Plan(self.address).tasks(shard)
        numbers: dict[int, list[Address]] = {}
        for parcel in parcels:
            numbers.setdefault(parcel.task, []).append(parcel)
        for task in range(expected):
            found = numbers.get(task, [])
            if [parcel.number for parcel in found] != list(range(len(found))) or [parcel.is_last for parcel in found][-1:] != [
                True
            ]:
                raise UserError(f"{self.folder.path(staging(shard))} lacks parcels of task {task}; start the command again")

    # Other files

    def write_failed(self) -> int:
        """Write source, kind and error of the recordings that failed to failed.parquet; return how many they are."""
        import pyarrow as pa

        fields = pa.schema([("source", pa.string()), ("error_kind", pa.string()), ("error", pa.string())])
        count, last = 0, None
        with written(self.folder, FAILED, fields) as writer:
            for batch in self.rows(fields.names):
                failed = [row for row in batch.to_pylist() if row["error"] is not None]
                kept = [
                    row
                    for row, before in zip(failed, [last, *failed], strict=False)
                    if before is None or row["source"] != before["source"]
                ]
                last = failed[-1] if failed else last
                if kept:
                    writer.write_table(pa.Table.from_pylist(kept, fields))
                count += len(kept)
        return count

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What manifest.json holds; None where there is none yet. Raises `UserError` for a damaged one."""
        if not self.folder.exists(MANIFEST):
            return None
        try:
            manifest = json.loads(self.folder.read(MANIFEST))
        except ValueError as error:
            raise UserError(
                f"{self.folder.path(MANIFEST)} is damaged ({error}); write the archive again into another folder"
            ) from error
        if not isinstance(manifest, dict):
            raise UserError(f"{self.folder.path(MANIFEST)} is no manifest of an archive; give another folder")
        return manifest

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write `MANIFEST` or `REPORT`."""
        self.folder.write(name, json.dumps(content, indent=2).encode() + b"\n")


def _data(shard: int) -> str:
    return f"{DATA}/shard-{shard:06}.parquet"
