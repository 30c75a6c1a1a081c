"""CSV and TSV files with a header: reading them checks their columns, writing them is all or nothing."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from models.errors import UserError
from models.files import write_bytes


def read_table(
    path: str | Path, columns: Sequence[str], *, delimiter: str = ",", header: bool = True, advice: str = ""
) -> list[dict[str, str]]:
    """Read a CSV file's rows as dictionaries. `columns` must be there, others may; without a header they are all columns, in order.

    Raises FileNotFoundError, with the advice, and UserError, with the line, for a file or a row of another form.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found (or not a file){advice and '; '}{advice}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, None if header else columns, delimiter=delimiter, strict=True)
        try:
            found = reader.fieldnames or ()
            missing = [column for column in columns if column not in found]
            if missing:
                raise UserError(f"column {', '.join(missing)} is missing; there are {', '.join(found) or 'none'}")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"this row does not have the {len(found)} columns {', '.join(found)}")
                rows.append(row)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not text in UTF-8; save it as CSV in UTF-8") from error
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def write_table(path: str | Path, rows: Iterable[Sequence[object]], *, delimiter: str = ",") -> None:
    """Write rows, the first of them the header, as UTF-8; the file appears when it is complete."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode())
