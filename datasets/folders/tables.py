"""The recordings, or segments of them, that a user's table names: a CSV, a Raven selection table or an Audacity label track."""

import os
import unicodedata
from collections import defaultdict
from functools import cache
from math import inf
from pathlib import Path, PurePosixPath

from datasets.csv_table import number, parse_own_table, read_text
from datasets.folders.candidates import SPLIT_OF_WORD, Candidate, Found, list_below, normal, why_unusable
from datasets.folders.label_files import Label, parse_labels, recording_stem
from models.errors import UserError

COLUMNS = ("path", "labels")
OPTIONAL_COLUMNS = ("start", "end", "split", "fold", "group")
ALIASES = {"filename": "path", "onset": "start", "offset": "end", "event_label": "labels"}  # DESED's names of columns
_DIGITS = 6  # of times in seconds; a millionth is less than a sample

_Recording = tuple[str, Path, str]  # name, path, path without links


def from_table(root: Path, table: Path) -> Found:
    """List the recordings below `root` (links resolved), or the segments of them, that a table or a folder of tables names."""
    if not table.is_dir():
        text = read_text(table, "give the CSV file that lists the recordings, or a folder of label files")
        labels = parse_labels(text, table)
        return _from_rows(root, table, text) if labels is None else _from_labels(root, table.parent, {table: labels}, Found())
    found = Found()
    tables = {}
    for path in _text_files(table):
        labels = parse_labels(read_text(path), path)
        if labels is None:
            found.left_out.append((path.relative_to(table).as_posix(), "no Raven selection table and no Audacity label track"))
        else:
            tables[path] = labels
    if not tables:
        raise UserError(
            f"{table} has no label files (.txt): selection tables of Raven, with a column Begin Time (s), or label tracks of "
            "Audacity, lines of start, end and label"
        )
    return _from_labels(root, table, tables, found)


def _from_rows(root: Path, table: Path, text: str) -> Found:
    rows = parse_own_table(text, table, COLUMNS, OPTIONAL_COLUMNS, ALIASES)
    if not rows:
        raise UserError(f"{table} has no rows")
    found = Found(columns={"split", "fold", "group"} & rows[0][1].keys())
    if {"split", "fold"} <= found.columns:
        raise UserError(f"{table} has both a split and a fold column; keep one")

    @cache
    def find(name: str) -> _Recording | str:
        path = _spelled_as_on_disk(root, name)
        return why_unusable(path, root) or _recording(root, path)

    for line, row in rows:
        name, part, fold, group = (row.get(column, "") for column in ("path", "split", "fold", "group"))
        if "split" in row and part.lower() not in SPLIT_OF_WORD:
            raise UserError(f"{table}, line {line}: split {part!r} is none of {', '.join(SPLIT_OF_WORD)}")
        if "fold" in row and not fold:
            raise UserError(f"{table}, line {line}: the fold is empty")
        try:
            segment = _segment(row.get("start", ""), row.get("end", ""))
        except UserError as error:
            raise UserError(f"{table}, line {line}: {error}") from error
        labels = _labels(row["labels"], found)
        recording = find(name) if name else "no path"
        if isinstance(recording, str):
            found.left_out.append((name or f"line {line}", recording))
            continue
        part = SPLIT_OF_WORD.get(part.lower(), "")
        found.candidates.append(Candidate(*recording, labels, segment, part, fold, group))
    return found


def _from_labels(root: Path, folder: Path, tables: dict[Path, list[Label]], found: Found) -> Found:
    """Find the recordings of label files, which lie in `folder`."""
    by_name, by_stem = defaultdict(list), defaultdict(list)
    for path in list_below(root, found):
        by_name[path.name.lower()].append(path)
        by_stem[path.stem.lower()].append(path)

    @cache
    def find(table: Path, file: str) -> _Recording | str:
        """The recording called `file`, or like the table, the nearest to it of several; or why there is none."""
        parts = PurePosixPath(file.replace("\\", "/")).parts or (recording_stem(table),)
        paths = by_name[parts[-1].lower()] or ([] if file else by_stem[parts[-1].lower()])
        alike = [len(os.path.commonprefix([path.parts[::-1], parts[::-1]])) for path in paths]
        paths = [path for path, count in zip(paths, alike, strict=True) if count == max(alike)]
        beside = [path for path in paths if path.parent == table.parent.resolve()]
        inside = [path for path in paths if path.parent == root / table.parent.relative_to(folder)]
        paths = beside or inside or paths
        if not paths:
            return f"no recording {parts[-1] if file else parts[-1] + '.*'} is in {root}"
        if len(paths) > 1:
            return f"its recording may be any of {', '.join(path.relative_to(root).as_posix() for path in paths[:3])}"
        return why_unusable(paths[0], root) or _recording(root, paths[0])

    for table, labels in tables.items():
        name = table.relative_to(folder).as_posix()
        for label in labels:
            recording = find(table, label.file)
            if not label.text.strip("; "):
                found.left_out.append((f"{name}, line {label.line}", "no label"))
                continue
            texts = _labels(label.text, found)
            if isinstance(recording, str):
                found.left_out.append((name, recording))
            else:
                segment = round(label.start, _DIGITS), round(label.end, _DIGITS)
                found.candidates.append(Candidate(*recording, texts, segment))
    return found


def _recording(root: Path, path: Path) -> _Recording:
    return normal(path.relative_to(root).as_posix()), path, os.path.realpath(path)


def _labels(text: str, found: Found) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(normal(label.strip()) for label in text.split(";") if label.strip()))
    found.classes.update(labels)
    found.single_label &= len(labels) == 1
    return labels


def _segment(start: str, end: str) -> tuple[float, float] | None:
    """The seconds in the cells of a row; a missing one is the beginning or the end of the recording."""
    if not start and not end:
        return None
    return round(number(start or "0"), _DIGITS), round(number(end), _DIGITS) if end else inf


def _spelled_as_on_disk(root: Path, name: str) -> Path:
    """The path below `root`, as it is or with letters composed or decomposed (Unicode NFC, NFD) or slashes for backslashes."""
    if os.path.isabs(name) and not Path(os.path.normpath(name)).is_relative_to(root):
        name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
    names = dict.fromkeys((name, name.replace("\\", "/")))
    forms = [form for name in names for form in (name, normal(name), unicodedata.normalize("NFD", name))]
    paths = [Path(os.path.normpath(root / form)) for form in forms]
    return next((path for path in paths if os.path.lexists(path)), paths[0])


def _text_files(folder: Path) -> list[Path]:
    """Text files below a folder, in the order of their names, without hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(where, name) for name in sorted(files) if name.lower().endswith(".txt") and not name.startswith(".")]
    return found
