"""Lists of recordings: the names in a .txt, .csv, .tsv or .jsonl file, read line by line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import TextIO

from helpers.archive.storage import opened
from models.command import printable
from models.errors import UserError

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
COLUMNS = ("file", "path", "source", "address", "url", "audio", "filename", "file_name")
LINE_CHARACTERS = 1 << 20


def listed_names(address: str, suffix: str, problems: list[str]) -> Iterator[str]:
    """Yield the names in a list; empty lines do not count. A line that cannot be used is a problem, which names it.

    Raises UserError for a table without one of `COLUMNS` and for what is no text, and OSError.
    """
    read = {".jsonl": _json_names, ".txt": _lines}.get(suffix, _table_names)
    with opened(address) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=None) as text:
        yield from read(text, address, problems)


def _lines(text: TextIO, address: str, problems: list[str]) -> Iterator[str]:
    number = 0
    while line := text.readline(LINE_CHARACTERS):
        number += 1
        if len(line) == LINE_CHARACTERS or "\0" in line:
            raise UserError(f"{address}, line {number}, is no text; give a list with a path or an address in each line")
        if line.strip():
            yield line.rstrip("\n")


def _json_names(text: TextIO, address: str, problems: list[str]) -> Iterator[str]:
    for number, line in enumerate(_lines(text, address, problems), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            record = next((record[name] for name in COLUMNS if isinstance(record.get(name), str)), None)
        if isinstance(record, str) and record and _is_file_name(record):
            yield record
        else:
            problems.append(f"{printable(address)}, record {number}, is no JSON with one of {', '.join(COLUMNS)}")


def _table_names(text: TextIO, address: str, problems: list[str]) -> Iterator[str]:
    lines = (f"{line}\n" for line in _lines(text, address, problems))
    header = next(lines, "")
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    column = next((names.index(name) for name in COLUMNS if name in names), None)
    if column is None:
        raise UserError(f"{address} has no column {', '.join(COLUMNS)}; its first line is {printable(header.strip())[:100]!r}")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if len(row) > column and row[column].strip():
                yield row[column].strip()
            else:
                problems.append(f"{printable(address)}, line {reader.line_num + 1}, names no recording")
    except csv.Error as error:
        raise UserError(f"{address}, line {reader.line_num + 1}: {error}") from error


def _is_file_name(name: str) -> bool:
    """Whether a name can be one of a file: JSON can write half a character."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in name
