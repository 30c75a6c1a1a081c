"""AudioSet's lists of segments, and which recording belongs to which segment by the name that a downloader gave it."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.audioset import NUM_CLASSES
from datasets.labels import audioset_mids
from models.errors import UserError

_LAST_TIME = re.compile(r"_(\d+(?:\.\d+)?)$")


class Segment(NamedTuple):
    """The part of a YouTube video that is labelled."""

    start: float  # seconds of the video
    end: float
    classes: tuple[int, ...]  # indices


def read_segments(path: str | Path) -> dict[str, Segment]:
    """Read segments by YouTube id from an AudioSet CSV: comments begin with '#', other lines are `id, start, end, "mid,mid,..."`.

    Raises FileNotFoundError, and UserError, with the line, for a row of another form, an unknown MID or a repeated id.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found (or not a file); give one of AudioSet's CSV files")
    class_of = {mid: index for index, mid in enumerate(audioset_mids())}
    segments: dict[str, Segment] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            for row in reader:
                if row and not row[0].startswith("#"):
                    youtube_id, segment = _parse_row(row, class_of)
                    if youtube_id in segments:
                        raise UserError(f"id {youtube_id} is listed twice")
                    segments[youtube_id] = segment
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return segments


def _parse_row(row: Sequence[str], class_of: Mapping[str, int]) -> tuple[str, Segment]:
    try:
        youtube_id, start, end, mids = row
        times = float(start), float(end)
        if not 0 <= times[0] < times[1]:
            raise ValueError
    except ValueError as error:
        raise UserError(f'{row} is not `id, start, end, "mid,mid,..."` as in AudioSet\'s CSV files') from error
    unknown = [mid for mid in mids.split(",") if mid not in class_of]
    if unknown:
        raise UserError(f"{', '.join(unknown)} is not among AudioSet's {NUM_CLASSES} class identifiers (MIDs)")
    return youtube_id, Segment(*times, tuple(class_of[mid] for mid in mids.split(",")))


def match(name: str, segments: Mapping[str, Segment]) -> tuple[str, bool] | None:
    """The id of the segment that a name without suffix belongs to, and whether the name holds times; None for no segment.

    Names are ID, YID, ID_START and ID_START_END, with times in seconds or milliseconds. An id may begin with Y or hold
    underscores and digits: what counts is whether the list has it, with these times.
    """
    times: list[str] = []
    while True:
        for youtube_id in (name, name.removeprefix("Y")):
            segment = segments.get(youtube_id)
            if segment and all(map(_same_time, times, segment[:2])):
                return youtube_id, bool(times)
        last = _LAST_TIME.search(name)
        if last is None or len(times) == 2:
            return None
        times.insert(0, last[1])
        name = name[: last.start()]


def _same_time(text: str, seconds: float) -> bool:
    """Whether a number in a name is this time, in seconds (whole ones may be cut or rounded) or in milliseconds."""
    return abs(float(text) - seconds) < (0.01 if "." in text else 1) or abs(float(text) - 1000 * seconds) < 1
