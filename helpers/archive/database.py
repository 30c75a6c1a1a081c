"""DuckDB, which answers questions about files that do not fit into memory; and packages that are optional."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from models.errors import UserError, install_command

if TYPE_CHECKING:
    import duckdb


def require(package: str) -> ModuleType:
    """Import an optional package; `UserError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}, which is not installed: {install_command('archive')}") from error


def database(memory: str, folder: str) -> duckdb.DuckDBPyConnection:
    """Open a database in memory, which writes to a folder what is larger than its limit, such as "1GB"."""
    connection = require("duckdb").connect()
    for name, value in {"memory_limit": memory, "temp_directory": folder, "preserve_insertion_order": "false"}.items():
        connection.execute(f"SET {name} = {quoted(value)}")
    return connection


def parquet_rows(files: Sequence[str]) -> str:
    """SQL of the rows of Parquet files: what stands behind FROM. A folder called source=x would be a column otherwise."""
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning = false)"


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
