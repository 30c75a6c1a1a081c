"""Shared by all results: dicts, JSON, CSV and pandas tables; and files of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.csv_table import safe_cell
from models.command import printable
from models.errors import UserError
from models.files import replacing

if TYPE_CHECKING:
    import pandas

COLUMNS = ("source", "start", "end", "label", "score")  # seconds and scores in [0, 1]
SUFFIXES = (".jsonl", ".csv")


class Rows:
    """JSON, CSV and pandas for a result with `to_dict` and `to_rows`: flat dicts with the keys `COLUMNS`, for each tag or event.

    Rows of events have a "mean" as well, those of a single channel a "channel".
    """

    def to_json(self) -> str:
        """Return one line."""
        return printable(json.dumps(self.to_dict(), ensure_ascii=False))  # escapes are those of JSON

    def to_csv(self) -> str:
        """Return a header and one line for each row."""
        rows = self.to_rows()
        return csv_lines(rows, columns_of(rows), header=True)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with one row for each of `to_rows`."""
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise UserError("to_pandas needs pandas, which is not installed: pip install pandas") from error
        rows = self.to_rows()
        return pandas.DataFrame(rows, columns=list(columns_of(rows)))


def span(source: str | None, start: float, end: float | None) -> dict[str, Any]:
    """Return the first three of `COLUMNS`, to the microsecond."""
    return {"source": source, "start": round(start, 6), "end": None if end is None else round(end, 6)}


def extras(warnings: Sequence[str], channel: int | None) -> dict[str, Any]:
    """Return the items of a dict that most results do without."""
    return {**({"channel": channel} if channel is not None else {}), **({"warnings": list(warnings)} if warnings else {})}


def columns_of(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the names of the columns of rows, `COLUMNS` where there are none."""
    return tuple(rows[0]) if rows else COLUMNS


def csv_lines(rows: Iterable[dict[str, Any]], columns: Sequence[str], *, header: bool = False) -> str:
    """Return a line for each row, of cells as `datasets.csv_table.safe_cell` makes them; None is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        table.writeheader()
    table.writerows({column: safe_cell(cell) for column, cell in row.items()} for row in rows)
    return text.getvalue()


def result_lines(result: Rows, suffix: str, *, header: bool) -> str:
    """Return a result as lines of a .jsonl or .csv file, those of a table below their header if that is asked for."""
    if suffix == ".jsonl":
        return result.to_json() + "\n"
    rows = result.to_rows()
    return csv_lines(rows, columns_of(rows), header=header) if rows else ""


def results_path(text: str | Path) -> Path:
    """Return the path of a file of results; `UserError` for another suffix and for a folder."""
    return checked_path(text, SUFFIXES, "results")


def checked_path(text: str | Path, suffixes: Sequence[str], what: str) -> Path:
    """Return the path of a file to be written; `UserError`, which names `what` it holds, for another suffix and for a folder."""
    path = Path(text)
    if not path.name.lower().endswith(tuple(suffixes)) or path.is_dir():
        raise UserError(f"{what} are a file that ends in {' or '.join(suffixes)}, not {path}")
    return path


@contextmanager
def results_file(path: str | Path) -> Iterator[ResultsFile]:
    """Open a .jsonl or .csv file for results. It appears under its name when complete; after an error, not at all."""
    path = results_path(path)
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,  # names may be no UTF-8
    ):
        results = ResultsFile(file, path.suffix.lower())
        yield results
        results.finish()


class ResultsFile:
    """An open file of results: JSON, one result per line; or CSV, their rows, and nothing for a `Failure`."""

    def __init__(self, file: io.TextIOBase, suffix: str) -> None:
        self._file, self._suffix = file, suffix
        self._is_empty = True

    def write(self, results: Iterable[Rows]) -> None:
        for result in results:
            if lines := result_lines(result, self._suffix, header=self._is_empty):
                self._file.write(lines)
                self._is_empty = False

    def finish(self) -> None:
        """Give a table without rows its header."""
        if self._suffix == ".csv" and self._is_empty:
            self._file.write(csv_lines([], COLUMNS, header=True))
