"""Finished archives, opened to answer questions about them: their files, their models, and SQL over their rows."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers.tagger.selection import find_classes
from models.errors import UserError, install_command

if TYPE_CHECKING:
    import duckdb
    import pyarrow

DATA, MANIFEST = "data", "manifest.json"
BATCH_ROWS = 8192
MEMORY_LIMIT = "2GB"  # of DuckDB, which then writes to a temporary folder


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
    """The output of archive.py, or of `python -m helpers.archive merge`."""

    address: str
    files: tuple[str, ...]  # data/shard-*.parquet, in the order of the plan
    manifest: dict[str, Any]
    models: tuple[StoredModel, ...]
    columns: frozenset[str]

    @property
    def has_events(self) -> bool:
        """Whether a row is an event; else it is a recording, a part of a long one, or a window."""
        return any("label" + model.suffix in self.columns for model in self.models)

    @property
    def has_windows(self) -> bool:
        return not self.has_events and self.manifest["settings"].get("window") is not None

    @property
    def unit(self) -> str:
        """What a row is, where the parts of a long recording count as one."""
        return "events" if self.has_events else "windows" if self.has_windows else "recordings"

    @property
    def channel(self) -> str:
        """SQL of the channel of a row."""
        return "channel" if "channel" in self.columns else "NULL::SMALLINT"

    def require(self, column: str, model: StoredModel, what: str) -> str:
        """Return the name of a column of a model; `UserError`, with what it is, where the archive lacks it."""
        if column + model.suffix not in self.columns:
            raise UserError(f"{self.address} has no {what}; run archive.py so that it writes them, into another folder")
        return column + model.suffix

    def rows(self) -> str:
        """SQL of the rows: `FROM` is to stand before it."""
        return f"read_parquet([{', '.join(map(quoted, self.files))}])"

    def require_scores(self, model: StoredModel) -> None:
        """Raise `UserError` where the archive has no scores of a model."""
        if not {name + model.suffix for name in ("scores", "labels", "label")} & self.columns:
            raise UserError(f"{self.address} has no scores; run archive.py so that it tags, into another folder")

    def scored_rows(self, model: StoredModel, k: int) -> str:
        """SQL of a query: source, channel, start, end (seconds) and score of class k of each row that has one."""
        label, labels, scores = (name + model.suffix for name in ("label", "labels", "scores"))
        where = "error IS NULL"
        if label in self.columns:
            score, where = f"score{model.suffix}", f"{where} AND {label} = {k}"
        elif labels in self.columns:  # what top_k leaves out counts as 0 where parts are averaged
            score = f"coalesce(label_scores{model.suffix}[list_position({labels}, {k})], 0)"
        else:
            self.require_scores(model)
            score = f"{scores}[{k + 1}]"
        return f'SELECT source, {self.channel} AS channel, start, "end", {score} AS score FROM {self.rows()} WHERE {where}'

    def batches(self, columns: Sequence[str] | None = None, file: str | None = None) -> Iterator[pyarrow.RecordBatch]:
        """Yield the rows of all files, or of one, in the order of the plan, some thousand at a time."""
        for name in self.files if file is None else (file,):
            with open_parquet(name) as parquet:
                yield from parquet.iter_batches(BATCH_ROWS, columns=None if columns is None else list(columns))


def open_archive(address: str) -> Archive:
    """Open the output of archive.py: a folder or an fsspec address. One that is not complete is reported, and used as it is."""
    require("pyarrow")
    address = address.rstrip("/") or address
    try:
        with file_system(address)[0].open(f"{file_system(address)[1]}/{MANIFEST}", "rb") as file:
            manifest = json.loads(file.read())
        models = manifest["models"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{address} is no output of archive.py: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{address}/{MANIFEST} is damaged or of another version; write the archive again") from error
    files = _shards(address)
    if not files:
        raise UserError(f"{address} holds no complete shard yet; let archive.py finish")
    if len(files) < manifest.get("shards", 0):
        print(f"{address} is not complete: {len(files)} of {manifest['shards']} shards are used", file=sys.stderr)
    with open_parquet(files[0]) as parquet:
        columns = frozenset(parquet.schema_arrow.names)
    several = len(models) > 1
    stored = [StoredModel(m["name"], m["sha256"], tuple(m["labels"]), f"_{m['name']}" if several else "") for m in models]
    return Archive(address, files, manifest, tuple(stored), columns)


def open_alike(addresses: Sequence[str]) -> list[Archive]:
    """Open archives that are asked together; `UserError` where their models, labels or settings differ."""
    archives = [open_archive(address) for address in dict.fromkeys(addresses)]
    first = archives[0]
    for other in archives[1:]:
        for what, of in (
            ("the models", lambda archive: [(model.name, model.sha256) for model in archive.models]),
            ("the labels", lambda archive: [model.labels for model in archive.models]),
            ("the settings", lambda archive: archive.manifest["settings"]),
            ("the columns", lambda archive: archive.columns),
        ):
            if of(first) != of(other):
                raise UserError(f"{what} of {first.address} and {other.address} differ; ask them one by one")
    return archives


def pick_model(archives: Sequence[Archive], name: str | None) -> StoredModel:
    """Return the model that a question is about; `UserError` where there are several and none, or an unknown one, is named."""
    models = {model.name: model for model in archives[0].models}
    if name is None and len(models) == 1:
        return archives[0].models[0]
    if name not in models:
        given = "no model is named" if name is None else f"unknown model {name!r}"
        raise UserError(f"{given}; give --model, one of {', '.join(models)}")
    return models[name]


def connect(archives: Sequence[Archive]) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that can read the archives' files."""
    connection = require("duckdb").connect()
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    for protocol in {archive.address.partition("://")[0] for archive in archives if "://" in archive.address}:
        connection.register_filesystem(require("fsspec").filesystem(protocol))
    return connection


def require(package: str) -> ModuleType:
    """Import an optional package; `UserError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {package}, which is not installed: {install_command('archive')}") from error


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def is_local(address: str) -> bool:
    return "://" not in address


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it."""
    return require("fsspec").core.url_to_fs(address)


def open_parquet(file: str) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file by its path or address, to be closed by `with`; `UserError` where it is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        if is_local(file):
            return pyarrow.parquet.ParquetFile(file)
        fs, path = file_system(file)
        return pyarrow.parquet.ParquetFile(fs.open(path, "rb"))
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{file} is damaged; remove it and run archive.py again") from error


def _shards(address: str) -> tuple[str, ...]:
    folder = f"{address}/{DATA}"
    fs, path = file_system(folder)
    names = (os.path.basename(file) for file in fs.ls(path, detail=False)) if fs.isdir(path) else ()
    return tuple(sorted(f"{folder}/{name}" for name in names if name.endswith(".parquet") and not name.startswith(".")))
