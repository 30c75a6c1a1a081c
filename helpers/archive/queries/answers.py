"""Answers as aligned columns, CSV or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from helpers.tagger.rows import csv_lines
from models.command import printable

FORMATS = ("table", "csv", "jsonl")
WIDTH = 10  # of the columns of a table but the last
DIGITS = 6  # of numbers in CSV and JSON


def lines(rows: Iterable[dict[str, Any]], columns: Sequence[str], style: str) -> Iterator[str]:
    """Yield rows as lines of one of `FORMATS`, as they come. The last column is the one that may be long."""
    if style == "jsonl":
        yield from (printable(json.dumps(_rounded(row), ensure_ascii=False)) for row in rows)
    elif style == "csv":
        yield csv_lines([], columns, header=True).rstrip("\n")
        yield from (csv_lines([_rounded(row)], columns).rstrip("\n") for row in rows)
    else:
        yield _table_line(columns)
        yield from (_table_line([row[column] for column in columns]) for row in rows)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()}


def _table_line(cells: Sequence[object]) -> str:
    texts = [printable("" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else cell) for cell in cells]
    return "  ".join([*(text.rjust(WIDTH) for text in texts[:-1]), texts[-1]])
