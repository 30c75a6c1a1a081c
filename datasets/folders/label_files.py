"""Labels from annotation programs: Raven selection tables and Audacity label tracks."""

import re
from pathlib import Path
from typing import NamedTuple

from datasets.csv_table import first_line, number, parse_own_table
from models.errors import UserError

# Columns of a selection table, in small letters; the labels are in the first of `ANNOTATION_COLUMNS` that is there.
BEGIN, END, OFFSET = "begin time (s)", "end time (s)", "file offset (s)"
FILE_COLUMNS = ("begin path", "begin file")
ANNOTATION_COLUMNS = ("annotation", "annotations", "species", "label", "labels", "class", "common name", "species code")
ANNOTATION_COLUMNS += ("call type", "sound type", "type", "tag", "tags")

_NUMBER = r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?"
_TRACK_LINE = re.compile(rf"\s*{_NUMBER}\t\s*{_NUMBER}\s*(\t.*)?$", re.ASCII)
_FREQUENCIES = "\\"  # begins the line below a label that has a frequency range
_PROGRAM_SUFFIXES = re.compile(r"(\.birdnet|\.table(\.\d+)?|\.selections?|\.labels?)*\.[^.]*$", re.IGNORECASE)


class Label(NamedTuple):
    """A labelled part of a recording."""

    line: int  # of the file that it is from
    start: float  # seconds from the beginning of the recording
    end: float  # seconds; not checked against `start`
    text: str
    file: str  # name or path of the recording, as the program had it; "" where the file with the labels does not say


def parse_labels(text: str, path: Path) -> list[Label] | None:
    """Take apart a Raven selection table or an Audacity label track; None for any other text.

    `text` is that of `read_text(path)`. Raises UserError for a row of another form, with the line, and for a selection table
    without a column of labels, with the columns that were looked for.
    """
    header = first_line(text)
    if _TRACK_LINE.match(header):
        return _label_track(text, path)
    return _selection_table(text, path) if BEGIN in " ".join(header.lower().split()) else None


def recording_stem(path: Path) -> str:
    """A recording's name by that of its labels: rec for rec.txt and rec.Table.1.selections.txt, rec.wav for rec.wav.txt."""
    return _PROGRAM_SUFFIXES.sub("", path.name)


def _label_track(text: str, path: Path) -> list[Label]:
    labels = []
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip() or content.startswith(_FREQUENCIES):
            continue
        if not _TRACK_LINE.match(content):
            raise UserError(f"{path}, line {line}: {content!r} is not start, end and label, separated by tabs")
        start, end, *label = content.split("\t", 2)
        labels.append(Label(line, *_times(path, line, start, end), "".join(label).strip(), ""))
    return labels


def _selection_table(text: str, path: Path) -> list[Label]:
    rows = parse_own_table(text, path, (BEGIN, END), None)
    columns = rows[0][1].keys() if rows else ()
    annotation = next((column for column in ANNOTATION_COLUMNS if column in columns), None)
    if rows and annotation is None:
        raise UserError(
            f"{path} has no column with labels; looked for {', '.join(ANNOTATION_COLUMNS)}; there are {', '.join(columns)}"
        )
    labels, seen = [], set()
    for line, row in rows:
        start, end = _times(path, line, row[BEGIN], row[END])
        file = next((row[column] for column in FILE_COLUMNS if row.get(column)), "")
        if row.get(OFFSET):  # the times are those of a sequence of files
            offset = _times(path, line, row[OFFSET], row[OFFSET])[0]
            start, end = offset, offset + end - start
        selection = (row.get("selection"), start, end, row[annotation], file)
        if row.get("selection") and selection in seen:  # once more for each view: waveform, spectrogram
            continue
        seen.add(selection)
        labels.append(Label(line, start, end, row[annotation], file))
    return labels


def _times(path: Path, line: int, *texts: str) -> list[float]:
    try:
        return [number(text) for text in texts]
    except UserError as error:
        raise UserError(f"{path}, line {line}: {error}") from error
