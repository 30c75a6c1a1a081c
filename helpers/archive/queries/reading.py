"""Archives, opened to answer questions about them: their files, their models, and SQL over their rows."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.archive.database import database, parquet_rows, require
from helpers.archive.output import DATA, MANIFEST, Output
from helpers.archive.parquet_files import read_batches, read_schema
from helpers.archive.plan import Plan
from helpers.archive.storage import file_system, is_remote
from helpers.tagger.selection import find_classes
from models.errors import UserError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_LIMIT = "2GB"  # of DuckDB, which writes to a temporary folder what is larger


@dataclass(frozen=True)
class StoredModel:
    """A model whose results an archive holds."""

    name: str
    sha256: str
    labels: tuple[str, ...]
    suffix: str  # of its columns: "" where the archive has one model

    def class_index(self, label: str) -> int:
        """Return the number of a label, in any case; `UserError` for an unknown one, with similar ones."""
        [k] = find_classes([label], self.labels)
        return k


@dataclass(frozen=True)
class Archive:
    """What archive.py or `python -m helpers.archive merge` wrote."""

    address: str
    shards: tuple[int, ...]  # the complete ones, in the order of the plan
    manifest: dict[str, Any]
    models: tuple[StoredModel, ...]
    schema: pa.Schema

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self.schema.names)

    @property
    def unit(self) -> str:
        """What a row is: "recordings" (or a part of a long one), "windows" or "events"."""
        if any(f"label{model.suffix}" in self.columns for model in self.models):
            return "events"
        return "recordings" if self.manifest["settings"]["window"] is None else "windows"

    def files(self) -> list[str]:
        """Return the addresses of the files of rows."""
        return [f"{self.address}/{DATA}/shard-{shard:06}.parquet" for shard in self.shards]

    def batches(self, columns: Sequence[str] | None = None, shard: int | None = None) -> Iterator[pa.Table]:
        """Yield the rows of all shards, or of one, in the order of the plan, some thousand at a time."""
        import pyarrow as pa

        for number, file in zip(self.shards, self.files(), strict=True):
            if shard in (None, number):
                yield from (pa.Table.from_batches([batch]) for batch in read_batches(file, columns))

    def require(self, column: str, model: StoredModel, option: str) -> str:
        """Return the name of a column of a model; `UserError` where the archive lacks it, with the option that writes it."""
        if column + model.suffix not in self.columns:
            raise UserError(f"{self.address} has no {column} of {model.name}; write another archive {option}")
        return column + model.suffix

    def require_scores(self, model: StoredModel) -> None:
        """Raise `UserError` where the archive has no scores of a model."""
        if not {name + model.suffix for name in ("scores", "labels", "label")} & self.columns:
            raise UserError(f"{self.address} has no scores of {model.name}; write another archive, by a model with classes")

    def rows(self) -> str:
        """SQL of the rows: what stands behind FROM."""
        return parquet_rows(self.files())

    def scored_rows(self, model: StoredModel, k: int) -> str:
        """SQL of a query: source, channel, start, end (seconds) and score of class k of each row that has one."""
        self.require_scores(model)
        label, labels, scores = (name + model.suffix for name in ("label", "labels", "scores"))
        where = "error IS NULL"
        if label in self.columns:
            score, where = f"score{model.suffix}", f"{where} AND {label} = {k}"
        elif labels in self.columns:  # what top_k leaves out counts as 0 where parts are averaged
            score = f"coalesce(label_scores{model.suffix}[list_position({labels}, {k})], 0)"
        else:
            score = f"{scores}[{k + 1}]"
        channel = "channel" if "channel" in self.columns else "NULL::SMALLINT"
        return f'SELECT source, {channel} AS channel, start, "end", {score} AS score FROM {self.rows()} WHERE {where}'


def open_archive(address: str) -> Archive:
    """Open an archive, a folder or an fsspec address. `UserError` for what is none, and for one without a complete shard."""
    require("pyarrow")
    output = Output(address)
    manifest = output.manifest
    if manifest is None:
        raise UserError(f"{address} is no output of archive.py: it has no {MANIFEST}")
    try:
        models = [(model["name"], model["sha256"], tuple(model["labels"] or ())) for model in manifest["models"]]
        manifest["settings"]["window"]  # noqa: B018 - raises
        if not all(re.fullmatch(r"\w+", name) for name, *_ in models):  # names of columns in SQL end in them
            raise TypeError
    except (KeyError, TypeError) as error:
        raise UserError(f"{address}/{MANIFEST} is of another version of this project; write the archive again") from error
    if not (shards := output.complete()):
        raise UserError(f"{address} has no complete shard yet; let archive.py finish")
    suffixes = ["" if len(models) == 1 else f"_{name}" for name, *_ in models]
    stored = tuple(StoredModel(*model, suffix) for model, suffix in zip(models, suffixes, strict=True))
    schema = read_schema(f"{output.address}/{DATA}/shard-{shards[0]:06}.parquet")
    return Archive(output.address, tuple(shards), manifest, stored, schema)


def open_alike(addresses: Sequence[str]) -> list[Archive]:
    """Open archives that are asked together; `UserError` where their models, labels or settings differ."""
    archives = list({archive.address: archive for archive in map(open_archive, addresses)}.values())
    first = archives[0]
    for other in archives[1:]:
        for what, of in _COMPARED.items():
            if of(first) != of(other):
                raise UserError(f"{first.address} and {other.address} differ in their {what}; ask them one by one")
    return archives


_COMPARED = {
    "models": lambda archive: [(model.name, model.sha256) for model in archive.models],
    "labels": lambda archive: [model.labels for model in archive.models],
    "settings": lambda archive: {**archive.manifest["settings"], "models": None, "model_name": None},  # paths may differ
    "columns": lambda archive: archive.schema,
}


def missing_shards(archive: Archive) -> int:
    """Return how many shards of the plan are not complete."""
    return max(0, Plan(archive.address).num_shards - len(archive.shards))


def pick_model(archives: Sequence[Archive], name: str | None) -> StoredModel:
    """Return the model that a question is about; `UserError` where there are several and none, or an unknown one, is named."""
    models = {model.name: model for model in archives[0].models}
    if name is None and len(models) == 1:
        return archives[0].models[0]
    if name not in models:
        given = "the archive has several models" if name is None else f"unknown model {name!r}"
        raise UserError(f"{given}; give --model, one of {', '.join(models)}")
    return models[name]


@contextlib.contextmanager
def connect(archives: Sequence[Archive] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database in memory that can read the archives' files. `UserError` for a damaged file, and where memory is full."""
    duckdb = require("duckdb")  # for its errors
    folder = os.path.join(tempfile.gettempdir(), f"efficientat-{os.getpid()}")  # made and removed where memory is short
    with database(MEMORY_LIMIT, folder) as connection:
        for archive in archives:
            protocol = archive.address.partition("://")[0]
            if is_remote(archive.address) and not connection.filesystem_is_registered(protocol):
                connection.register_filesystem(file_system(archive.address)[0])
        try:
            yield connection
        except (duckdb.IOException, duckdb.InvalidInputException, duckdb.OutOfMemoryException) as error:
            raise UserError(f"the archive cannot be read: {str(error).strip().splitlines()[0]}") from error
