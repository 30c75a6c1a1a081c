"""CSV and TSV files with a header: reading them checks their columns, writing them is all or nothing."""

import csv
import io
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from models.command import printable
from models.errors import UserError
from models.files import write_bytes

_DELIMITERS = ",;\t"
_NONE: Mapping[str, str] = MappingProxyType({})
_NO_DELIMITER = "\x1f"  # in no table: a row is one cell

logger = logging.getLogger(__name__)


def read_table(
    path: str | Path, columns: Sequence[str], *, delimiter: str = ",", header: bool = True, advice: str = ""
) -> list[dict[str, str]]:
    """Read the rows of a published CSV file as dictionaries. `columns` must be there, others may.

    Without a header they are all columns, in order. Raises FileNotFoundError, with the advice, and UserError, with the line, for a
    file or a row of another form.
    """
    path = Path(path)
    text = read_text(path, advice)
    reader = csv.DictReader(io.StringIO(text), None if header else columns, delimiter=delimiter, strict=True)
    try:
        found = reader.fieldnames or ()
        _check_columns(found, columns, None)
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise UserError(_other_columns(found))
            rows.append(row)
    except (UserError, csv.Error) as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def parse_own_table(
    text: str, path: Path, columns: Sequence[str], optional: Collection[str] | None = (), aliases: Mapping[str, str] = _NONE
) -> list[tuple[int, dict[str, str]]]:
    """Take apart a user's table, whatever program wrote it: the line of each row, and its cells by column.

    Columns are separated by commas, semicolons or tabs, in capital or small letters (here: small), with spaces around or not.
    `columns` must be there, `optional` ones may, None allows all; `aliases` are other names of these. Rows without content and
    columns without a name do not count. `text` is that of `read_text(path)`.

    Raises UserError, with the line, for a table or a row of another form.
    """
    delimiter, text = _find_delimiter(text, {*columns, *aliases})
    text = re.sub(rf'(?<![^\n {delimiter}])("(?:[^"]|"")*") +(?=[\n{delimiter}]|$)', r"\1", text)  # spaces behind a quoted cell
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    names: list[str] = []
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not names:
                names = [aliases.get(name, name) for name in map(_column_name, cells)]
                while not names[-1]:
                    names.pop()
                _check_columns(list(filter(None, names)), columns, optional)
                continue
            if any(cells[len(names) :]) or len(cells) < len(names):
                raise UserError(f"{_other_columns(list(filter(None, names)))}; quote a cell that holds a {delimiter!r}")
            rows.append((reader.line_num, {name: cell for name, cell in zip(names, cells, strict=False) if name}))
        if not names:
            _check_columns((), columns, optional)
    except (UserError, csv.Error) as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def read_text(path: Path, advice: str = "") -> str:
    """Read a text file in UTF-8, UTF-16 or cp1252, and log which it is where it is not UTF-8. Lines end with a line feed.

    Raises FileNotFoundError, with the advice, and UserError for a file that is no text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found (or not a file){advice and '; '}{advice}")
    content = path.read_bytes()
    if content.startswith(b"PK\3\4"):
        raise UserError(f"{path} is a workbook or a zip and no text; save it as CSV in UTF-8")
    utf_16 = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(content[:2])
    if not utf_16 and b"\0" in content[:2]:
        utf_16 = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    for encoding in (utf_16,) if utf_16 else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding != "utf-8-sig":
            logger.warning("%s is not in UTF-8; it is read as %s", path, encoding)
        return text.replace("\r\n", "\n").replace("\r", "\n")
    raise UserError(f"{path} is no text in UTF-8, UTF-16 or cp1252; save it as CSV in UTF-8")


def first_line(text: str) -> str:
    """The first line of a text that holds something; "" where none does."""
    return next((line for line in text.split("\n") if line.strip()), "")


def number(text: str) -> float:
    """Read a decimal number with a point or a comma. Raises UserError for anything else, infinity and NaN included."""
    if not re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", text.strip(), re.ASCII):
        raise UserError(f"{text.strip()!r} is no number, such as 1.5")
    return float(text.replace(",", "."))


def write_table(path: str | Path, rows: Iterable[Sequence[object]], *, delimiter: str = ",") -> None:
    """Write rows, the first of them the header, as UTF-8; the file appears when it is complete."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_results(path: str | Path, rows: Iterable[Sequence[object]], *, delimiter: str = ",") -> None:
    """As `write_table`, for people: with `safe_cell`, so that what is read back may differ from what was written."""
    write_table(path, ([safe_cell(cell) for cell in row] for row in rows), delimiter=delimiter)


def safe_cell(value: object) -> object:
    """Return a cell that a spreadsheet does not take for a formula: a text that begins with = + - @ gets a ' in front.

    Control characters are escaped, see `models.command.printable`. Numbers, also as texts, stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    if value.lstrip()[:1] in ("=", "+", "-", "@") or value[:1] in ("\t", "\r"):
        try:
            float(value)
        except ValueError:
            return f"'{text}"
    return text


def _find_delimiter(text: str, columns: Collection[str]) -> tuple[str, str]:
    """The delimiter with which most of the columns are in the header, and the table without a line 'sep=;', as Excel knows it."""
    if named := re.match(r'\s*"?sep=(.)"?[ \t]*(?=\n)', text):
        return named[1], text[named.end() :]
    header = first_line(text)

    def known(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        return len(set(columns) & {_column_name(cell) for cell in cells}), len(cells)

    best = max(_DELIMITERS, key=known)
    return (best if known(best)[1] > 1 else _NO_DELIMITER), text


def _other_columns(names: Sequence[str]) -> str:
    return f"this row does not have the {len(names)} columns {', '.join(names)}"


def _column_name(cell: str) -> str:
    return " ".join(cell.split()).lower()


def _check_columns(found: Sequence[str], columns: Sequence[str], optional: Collection[str] | None) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise UserError(f"column {', '.join(missing)} is missing; there are {', '.join(found) or 'none'}")
    if optional is None:
        return
    if twice := [column for column in dict.fromkeys(found) if found.count(column) > 1]:
        raise UserError(f"column {', '.join(twice)} is there twice; keep one")
    if unknown := [column for column in found if column not in (*columns, *optional)]:
        allowed = ", ".join((*columns, *optional))
        raise UserError(f"column {', '.join(unknown)} is unknown, so it would be ignored; rename or remove it (allowed: {allowed})")
