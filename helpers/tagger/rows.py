"""Shared by all results: dicts, JSON, CSV and pandas tables; and files of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from models.files import replacing

if TYPE_CHECKING:
    import pandas

COLUMNS = ("source", "start", "end", "label", "score")  # seconds and scores in [0, 1]
SUFFIXES = (".jsonl", ".csv")


class Rows:
    """JSON, CSV and pandas for a result with `to_dict` and `to_rows`: flat dicts with the keys `COLUMNS`, for each tag or event."""

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_csv(self) -> str:
        """Return a header and one line for each row."""
        text = io.StringIO()
        table = _csv_writer(text)
        table.writeheader()
        table.writerows(self.to_rows())
        return text.getvalue()

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with one row for each of `to_rows`."""
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise UserError("to_pandas needs pandas, which is not installed: pip install pandas") from error
        return pandas.DataFrame(self.to_rows(), columns=list(COLUMNS))


def span(source: str | None, start: float, end: float | None) -> dict[str, Any]:
    """Return the first three of `COLUMNS`, to the microsecond."""
    return {"source": source, "start": round(start, 6), "end": None if end is None else round(end, 6)}


def results_path(text: str | Path) -> Path:
    """Return the path of a file of results; `UserError` for another suffix and for a folder."""
    return checked_path(text, SUFFIXES, "results")


def checked_path(text: str | Path, suffixes: Sequence[str], what: str) -> Path:
    """Return the path of a file to be written; `UserError`, which names `what` it holds, for another suffix and for a folder."""
    path = Path(text)
    if path.suffix.lower() not in suffixes or path.is_dir():
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
        yield ResultsFile(file, path.suffix.lower())


class ResultsFile:
    """An open file of results: JSON, one result per line; or CSV, their rows, and nothing for a `Failure`."""

    def __init__(self, file: io.TextIOBase, suffix: str) -> None:
        self._file = file
        self._table = _csv_writer(file) if suffix == ".csv" else None
        if self._table:
            self._table.writeheader()

    def write(self, results: Iterable[Rows]) -> None:
        for result in results:
            if self._table:
                self._table.writerows(result.to_rows())
            else:
                self._file.write(result.to_json() + "\n")


def _csv_writer(file: io.TextIOBase) -> csv.DictWriter[str]:
    return csv.DictWriter(file, COLUMNS, lineterminator="\n")
