"""Tables as text in columns, as CSV, or as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from datasets.csv_table import safe_cell
from models.command import printable
from models.errors import UserError

FORMATS = ("text", "csv", "markdown")


def table(rows: Sequence[Mapping[str, object]], style: str = "text") -> str:
    """Return the rows, whose keys name the columns, as a table without a newline at its end; None is an empty cell.

    `style` is one of `FORMATS`. In text, columns of numbers, also written as text, stand to the right.
    """
    header = list(rows[0])
    cells = [["" if row[name] is None else printable(row[name]) for name in header] for row in rows]
    if style == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *([safe_cell(cell) for cell in line] for line in cells)])
        return text.getvalue().rstrip("\n")
    if style == "markdown":
        lines = [header, ["---"] * len(header), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if style != "text":
        raise UserError(f"unknown format {style!r}; allowed: {', '.join(FORMATS)}")
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [all(_is_number(cell) for cell in column if cell) for column in zip(*cells, strict=True)]

    def line(parts: Sequence[str]) -> str:
        aligned = (f"{part:{'>' if end else '<'}{width}}" for part, width, end in zip(parts, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join(map(line, [header, *cells]))


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return False
    return True
