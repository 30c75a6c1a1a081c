"""The plan: which recordings there are, in shards and tasks, in files of plan/; it is written while the input is listed.

A shard is a file, a task a row group. Nothing here holds more than a shard, except DuckDB where an input changed, which writes to
a temporary folder what is large.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.archive.database import database, parquet_rows
from helpers.archive.inputs import Entry
from helpers.archive.storage import Folder, read
from models.command import printable
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "plan"
SHARD_RECORDINGS, TASK_RECORDINGS = 4096, 64
TASK_BYTES = 1 << 28  # a task ends where its files are larger together: 2 h of mp3, 25 min of wav
NAMED = 3  # recordings that an error names
DATABASE_MEMORY = "1GB"


@dataclass
class Changes:
    """How an input differs from the plan."""

    new: Iterable[Entry]  # to be read once, in their order
    changed: list[str] = field(default_factory=list)  # names: the first ones
    gone: list[str] = field(default_factory=list)
    num_changed: int = 0
    num_gone: int = 0

    def check(self) -> None:
        """Raise `UserError` where recordings changed or are gone: their results would no longer be those of the input."""
        for what, names, count in (("changed", self.changed, self.num_changed), ("are gone", self.gone, self.num_gone)):
            if count:
                raise UserError(
                    f"recordings of the archive {what}, {count}: {_named(names, count)}; write another archive, or put them back"
                )


class Plan:
    """The recordings of an archive, by shard and task."""

    def __init__(self, output: str | os.PathLike[str]) -> None:
        """`output` is the address of the archive, which need not be there."""
        self._folder = Folder(output)

    @cached_property
    def num_shards(self) -> int:
        """How many shards there are; not looked up before it is asked for, as the folder of a large plan is long."""
        count = 0
        for name in self._folder.names(FOLDER):
            count += name == _name(count)
        return count

    @property
    def num_recordings(self) -> int:
        return sum(_metadata(self._path(shard)).num_rows for shard in range(self.num_shards))

    def recordings_of(self, shard: int) -> int:
        """Return how many recordings a shard has."""
        return _metadata(self._path(shard)).num_rows

    def tasks(self, shard: int) -> int:
        """Return how many tasks a shard has."""
        return _metadata(self._path(shard)).num_row_groups

    def recordings(self, shard: int, task: int) -> list[Entry]:
        """Return the recordings of a task."""
        with _file(self._path(shard)) as file:
            return _entries(file.read_row_group(task))

    def __iter__(self) -> Iterator[Entry]:
        """Yield all recordings in their order."""
        for shard in range(self.num_shards):
            for task in range(self.tasks(shard)):
                yield from self.recordings(shard, task)

    def extend(
        self, entries: Iterable[Entry], shard_recordings: int = SHARD_RECORDINGS, task_recordings: int = TASK_RECORDINGS
    ) -> int:
        """Append recordings as new shards, each written as soon as it is full; return how many recordings."""
        count = 0
        shard: list[Entry] = []
        for entry in entries:
            shard.append(entry)
            if len(shard) == shard_recordings:
                self._append(shard, task_recordings)
                count, shard = count + len(shard), []
        if shard:
            self._append(shard, task_recordings)
        return count + len(shard)

    def compare(self, entries: Iterable[Entry]) -> Changes:
        """Compare an input with the plan: what is new, what changed and what is gone.

        Both are read side by side as long as they are equal, so that an input that only became longer costs nothing more.
        """
        listed = iter(entries)
        planned = iter(self)
        for old in planned:
            new = next(listed, None)
            if new != old:
                return _compared(chain([old], planned), chain([new] if new else (), listed))
        return Changes(listed)

    def check_names(self) -> None:
        """Raise `UserError` where a name is there twice, as results would be mixed up."""
        with tempfile.TemporaryDirectory() as folder:
            connection = _database(folder)
            path = Path(folder, "plan.parquet")
            _write_all(path, self)
            query = f"FROM {parquet_rows([str(path)])} SELECT source GROUP BY source HAVING count(*) > 1"
            count, *names = connection.execute(
                f"WITH twice AS ({query}) SELECT count(*)::VARCHAR FROM twice UNION ALL (FROM twice ORDER BY source LIMIT {NAMED})"
            ).fetchall()
        if names:
            named = _named([name for (name,) in names], int(count[0]))
            raise UserError(f"recordings that are there twice, {count[0]}: {named}; list each once")

    def cut(self, num_shards: int) -> None:
        """Remove the shards behind the first `num_shards`."""
        while self.num_shards > num_shards:
            self.num_shards -= 1
            self._folder.remove(f"{FOLDER}/{_name(self.num_shards)}")
        _content.cache_clear()

    def _append(self, shard: list[Entry], task_recordings: int) -> None:
        from pyarrow import parquet

        tasks = list(_tasks(shard, task_recordings))
        content = io.BytesIO()
        with parquet.ParquetWriter(content, _schema(), compression="zstd") as writer:
            number = 0
            for task, entries in enumerate(tasks):
                writer.write_table(_table(entries, task, number), row_group_size=len(entries))
                number += len(entries)
        self._folder.write(f"{FOLDER}/{_name(self.num_shards)}", content.getvalue())
        self.num_shards += 1

    def _path(self, shard: int) -> str:
        return self._folder.path(f"{FOLDER}/{_name(shard)}")


def _name(shard: int) -> str:
    return f"shard-{shard:06}.parquet"


def _tasks(shard: Iterable[Entry], most: int) -> Iterator[list[Entry]]:
    task: list[Entry] = []
    size = 0
    for entry in shard:
        if task and (len(task) == most or size + entry.size > TASK_BYTES):
            yield task
            task, size = [], 0
        task.append(entry)
        size += entry.size
    yield task


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("task", pa.int32()),
            ("number", pa.int32()),  # in the shard
            ("source", pa.string()),
            ("address", pa.binary()),  # names of files may be no UTF-8
            ("member", pa.binary()),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            ("stamp", pa.string()),
            ("stored", pa.list_(pa.int64())),
        ]
    )


def _table(entries: list[Entry], task: int, number: int) -> pa.Table:
    import pyarrow as pa

    columns = {
        "task": [task] * len(entries),
        "number": range(number, number + len(entries)),
        "source": [entry.source for entry in entries],
        "address": [os.fsencode(entry.address) for entry in entries],
        "member": [None if entry.member is None else os.fsencode(entry.member) for entry in entries],
        "offset": [entry.offset for entry in entries],
        "size": [entry.size for entry in entries],
        "stamp": [entry.stamp for entry in entries],
        "stored": [entry.stored for entry in entries],
    }
    return pa.table({name: pa.array(values, _schema().field(name).type) for name, values in columns.items()})


def _entries(table: pa.Table | pa.RecordBatch) -> list[Entry]:
    rows = table.select(list(Entry._fields)).to_pylist()
    for row in rows:
        row["address"] = os.fsdecode(row["address"])
        row["member"] = None if row["member"] is None else os.fsdecode(row["member"])
        row["stored"] = None if row["stored"] is None else tuple(row["stored"])
    return [Entry(**row) for row in rows]


@lru_cache(maxsize=2)
def _content(path: str) -> bytes:
    """A shard's file, which is small and never changes; tasks of one follow each other."""
    return read(path)


def _file(path: str) -> Any:
    from pyarrow import ArrowInvalid, parquet

    try:
        return parquet.ParquetFile(io.BytesIO(_content(path)))
    except (ArrowInvalid, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged or gone ({error}); write the archive again into another folder") from error


def _metadata(path: str) -> Any:
    with _file(path) as file:
        return file.metadata


def _named(names: list[str], count: int) -> str:
    return ", ".join(map(printable, names)) + (", ..." if count > len(names) else "")


def _write_all(path: Path, entries: Iterable[Entry]) -> None:
    """Write recordings, numbered, to one file."""
    from pyarrow import parquet

    with parquet.ParquetWriter(path, _schema()) as writer:
        batch: list[Entry] = []
        number = 0
        for entry in entries:
            batch.append(entry)
            if len(batch) == SHARD_RECORDINGS:
                writer.write_table(_table(batch, number // (1 << 30), number % (1 << 30)))
                number, batch = number + len(batch), []
        if batch:
            writer.write_table(_table(batch, number // (1 << 30), number % (1 << 30)))


def _database(folder: str) -> Any:
    connection = database(DATABASE_MEMORY, folder)
    connection.execute("SET threads = 2")  # each needs memory
    return connection


def _compared(planned: Iterable[Entry], listed: Iterable[Entry]) -> Changes:
    """Compare by name, in any order."""
    folder = tempfile.TemporaryDirectory()
    connection = _database(folder.name)
    for name, entries in (("old", planned), ("new", listed)):
        path = Path(folder.name, f"{name}.parquet")
        _write_all(path, entries)
        connection.execute(f"CREATE VIEW {name} AS FROM {parquet_rows([str(path)])}")
    same = " AND ".join(
        f"old.{name} IS NOT DISTINCT FROM new.{name}" for name in ("address", "member", "offset", "size", "stamp", "stored")
    )

    def found(query: str) -> tuple[list[str], int]:
        count = connection.execute(f"SELECT count(*) {query}").fetchall()[0][0]
        names = connection.execute(f"SELECT source {query} ORDER BY source LIMIT {NAMED}").fetchall()
        return [name for (name,) in names], count

    gone, num_gone = found("FROM old ANTI JOIN new USING (source)")
    changed, num_changed = found(f"FROM old JOIN new USING (source) WHERE NOT ({same})")

    def new() -> Iterator[Entry]:
        with folder, connection:
            rows = connection.sql("SELECT new.* FROM new ANTI JOIN old USING (source) ORDER BY task, number")
            for batch in rows.to_arrow_reader(SHARD_RECORDINGS):
                yield from _entries(batch)

    return Changes(new(), changed, gone, num_changed, num_gone)
