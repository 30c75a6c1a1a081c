"""What the data sets on disk have in common: how their folder is found, and tables whose columns are checked."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from models.errors import UserError


def find_dir(dataset_dir: str | Path | None, variable: str, default: Path, advice: str) -> Path:
    """Folder of a data set: `dataset_dir`, else the environment variable, else `default`.

    Raises FileNotFoundError, with the advice, when it is not a folder.
    """
    folder = Path(dataset_dir or os.environ.get(variable) or default).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} not found; pass --dataset_dir, set {variable}, or {advice}")
    return folder


def read_table(
    path: str | Path, columns: Sequence[str], *, delimiter: str = ",", header: bool = True, advice: str = ""
) -> list[dict[str, str]]:
    """Rows of a CSV file as dictionaries. `columns` must be there, others may; without a header they are all columns, in order.

    Raises FileNotFoundError, with the advice, and ValueError, with the line, for a file or a row of another form.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found (or not a file){advice and '; '}{advice}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, None if header else columns, delimiter=delimiter, strict=True)
        try:
            found = reader.fieldnames or ()
            lacking = [column for column in columns if column not in found]
            if lacking:
                raise UserError(f"column {', '.join(lacking)} is missing; there are {', '.join(found) or 'none'}")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"this row has not the {len(found)} columns {', '.join(found)}")
                rows.append(row)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not text in UTF-8; save it as CSV in UTF-8") from error
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return rows
