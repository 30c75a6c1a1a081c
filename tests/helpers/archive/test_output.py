"""The files of an archive: parcels become shards once, in the order of the plan, whatever ends in between."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.archive.inputs import Entry
from helpers.archive.output import FAILED, MANIFEST, Output
from helpers.archive.parcels import Address
from helpers.archive.plan import Plan
from helpers.archive.schema import Settings, schema, to_table
from models.errors import UserError

SCHEMA = schema(Settings(("tiny",), embed=True), [("Speech", "Dog")], [3])
SOURCES = [f"{name}.wav" for name in "abcdef"]


@pytest.fixture(params=["here", "store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Output]:
    address = str(tmp_path / "out") if request.param == "here" else "memory://archive-output"
    Plan(address).extend([Entry(source, f"/in/{source}") for source in SOURCES], 4, 2)  # tasks: ab, cd; ef
    yield Output(address)
    fsspec.filesystem("memory").store.clear()


def rows(*sources: str, failed: bool = False) -> pa.Table:
    columns = {
        "source": sources,
        "start": [None if failed else 0.0] * len(sources),
        "scores": [None if failed else np.array([0.1, 0.9])] * len(sources),
        "embedding": [None if failed else np.arange(3.0)] * len(sources),
        "error": ["cannot be decoded" if failed else None] * len(sources),
        "error_kind": ["audio" if failed else None] * len(sources),
    }
    return to_table(columns, SCHEMA)


def fill(output: Output) -> None:
    """Write all parcels of the first shard, the last ones first."""
    output.write_parcel(Address(0, 1, 0, True), rows("c.wav", "d.wav", failed=True))
    output.write_parcel(Address(0, 0, 1, True), rows("b.wav"))
    output.write_parcel(Address(0, 0, 0, False), rows("a.wav"))


def sources(output: Output) -> list[str]:
    return [source for batch in output.rows(["source"]) for source in batch["source"].to_pylist()]


def names(output: Output) -> set[str]:
    return {f"{folder}/{name}" for folder in ("data", "staging/shard-000000") for name in output.folder.names(folder)}


def test_a_shard_holds_the_rows_of_its_parcels_in_the_order_of_the_plan(output: Output) -> None:
    fill(output)
    assert {parcel[1:] for parcel in output.parcels_of(0)} == {(0, 0, False), (0, 1, True), (1, 0, True)}
    assert output.sources(Address(0, 1, 0, True)) == ["c.wav", "d.wav"]
    assert (output.is_complete(0), output.complete(), sources(output)) == (False, [], [])
    assert output.compact(0) == 4
    assert (output.is_complete(0), output.complete(), output.is_complete(1)) == (True, [0], False)
    assert sources(output) == SOURCES[:4]
    assert names(output) == {"data/shard-000000.parquet"}


def test_a_shard_is_made_once(output: Output) -> None:
    fill(output)
    output.compact(0)
    before = output.folder.read("data/shard-000000.parquet")
    output.write_parcel(
        Address(0, 0, 0, False), rows("other.wav")
    )  # by a worker that was late, or that ended before it could clean up
    assert output.compact(0) == 0
    assert output.folder.read("data/shard-000000.parquet") == before
    assert names(output) == {"data/shard-000000.parquet"}


def test_parcels_are_overwritten_and_removed(output: Output) -> None:
    fill(output)
    output.write_parcel(Address(0, 0, 1, True), rows("B.wav"))
    assert output.sources(Address(0, 0, 1, True)) == ["B.wav"]
    output.remove_parcels(0, 0)
    assert {parcel.task for parcel in output.parcels_of(0)} == {1}


@pytest.mark.parametrize("missing", ["task", "first parcel", "last parcel"])
def test_a_shard_that_lacks_parcels_is_not_made(output: Output, missing: str) -> None:
    fill(output)
    if missing == "task":
        output.remove_parcels(0, 1)
    else:
        [parcel] = [p for p in output.parcels_of(0) if p[1:] == ((0, 0, False) if missing == "first parcel" else (0, 1, True))]
        output.folder.remove(parcel.name)
    with pytest.raises(UserError, match="shard-000000.*task"):
        output.compact(0)
    assert not output.is_complete(0)


def test_a_damaged_parcel_is_one_line_that_names_it(output: Output) -> None:
    fill(output)
    [parcel] = [parcel for parcel in output.parcels_of(0) if parcel.task == 1]
    output.folder.write(parcel.name, output.folder.read(parcel.name)[:-20])
    with pytest.raises(UserError, match="task-0001-parcel-0000-last"):
        output.compact(0)
    assert not output.is_complete(0)


def test_more_than_ten_thousand_parcels_stay_in_order(output: Output) -> None:
    for number in (0, 2, 10_000, 1):
        output.write_parcel(Address(1, 0, number, number == 10_000), rows("e.wav"))
    assert sorted(parcel.number for parcel in output.parcels_of(1)) == [0, 1, 2, 10_000]


def test_failures_are_listed_once_a_recording(output: Output) -> None:
    fill(output)
    output.compact(0)
    output.write_parcel(
        Address(1, 0, 0, True), pa.concat_tables([rows("e.wav"), rows("e.wav", "e.wav", failed=True), rows("f.wav", failed=True)])
    )
    output.compact(1)
    assert output.write_failed() == 4
    table = pq.read_table(io.BytesIO(output.folder.read(FAILED)))
    assert table.column_names == ["source", "error_kind", "error"]
    assert table["source"].to_pylist() == ["c.wav", "d.wav", "e.wav", "f.wav"]
    assert set(table["error_kind"].to_pylist()) == {"audio"}


def test_the_manifest(output: Output) -> None:
    assert output.manifest is None
    output.write_json(MANIFEST, {"models": ["tiny"]})
    assert output.manifest == {"models": ["tiny"]}
    output.folder.write(MANIFEST, b"{")
    with pytest.raises(UserError, match=MANIFEST):
        output.manifest  # noqa: B018


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(tmp_path)
    output.write_parcel(Address(0, 0, 0, True), rows("a.wav"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        output.write_parcel(Address(0, 0, 1, True), rows("b.wav"))
    assert [path.name for path in tmp_path.rglob("*.parquet*")] == ["task-0000-parcel-0000-last.parquet"]
    assert not list(tmp_path.rglob("*.part"))


def test_duckdb_reads_the_rows(tmp_path: Path) -> None:
    output = Output(tmp_path)
    Plan(tmp_path).extend([Entry("a.wav", "/a.wav"), Entry("b.wav", "/b.wav")])
    output.write_parcel(Address(0, 0, 0, True), pa.concat_tables([rows("a.wav"), rows("b.wav", failed=True)]))
    output.compact(0)
    found = duckdb.sql(
        f"SELECT source, scores[2], embedding, error_kind FROM '{tmp_path}/data/*.parquet' ORDER BY source"
    ).fetchall()
    assert found == [("a.wav", float(np.float16(0.9)), [0.0, 1.0, 2.0], None), ("b.wav", None, None, "audio")]
