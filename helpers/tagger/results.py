"""What tagging gives: small values that turn into dicts, JSON, CSV and rows for `pandas.DataFrame`; and files of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from helpers.tagger.events import Event, EventTracker
from models.errors import UserError
from models.files import replacing

COLUMNS = ("source", "start", "end", "label", "score")  # seconds and scores in [0, 1]
SUFFIXES = (".jsonl", ".csv")


@dataclass(frozen=True)
class Tag:
    """One event and its score in [0, 1]: sigmoid of the logit, or softmax where a recording has exactly one class."""

    label: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, "score": round(self.score, 6)}


class _Rows:
    """JSON and CSV of whatever has `to_dict` and `to_rows`."""

    def to_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a flat dict for each tag or event, with the keys `COLUMNS`: what `pandas.DataFrame` takes."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_csv(self) -> str:
        """Return a head line and one line for each row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.to_rows())
        return text.getvalue()


@dataclass(frozen=True)
class Tagging(_Rows, Sequence[Tag]):
    """The likeliest events of a recording or of one window of it, likeliest first; a sequence of `Tag`."""

    source: str
    start: float  # seconds
    end: float
    tags: tuple[Tag, ...]

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, index: Any) -> Any:
        return self.tags[index]

    def to_dict(self) -> dict[str, Any]:
        return {**_times(self.source, self.start, self.end), "tags": [tag.to_dict() for tag in self.tags]}

    def to_rows(self) -> list[dict[str, Any]]:
        return [{**_times(self.source, self.start, self.end), **tag.to_dict()} for tag in self.tags]


@dataclass(frozen=True, eq=False)
class Timeline(_Rows, Sequence[Tagging]):
    """The scores of successive windows of a recording; a sequence of one `Tagging` for each window."""

    source: str
    labels: tuple[str, ...]
    starts: np.ndarray  # (W,) seconds
    ends: np.ndarray  # (W,)
    scores: np.ndarray  # (W, K) float32
    top_k: int = 10  # how many tags of each window become part of dicts, JSON, CSV and rows
    threshold: float = 0.0  # least score of these
    classes: tuple[int, ...] | None = None  # the classes among which they are sought (None: all)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        tags = likeliest(self.labels, self.scores[index], self.top_k, self.threshold, self.classes)
        return Tagging(self.source, float(self.starts[index]), float(self.ends[index]), tags)

    def to_dict(self) -> dict[str, Any]:
        windows = [tagging.to_dict() for tagging in self]
        return {
            **_times(self.source, 0.0, float(self.ends[-1])),
            "windows": [{key: window[key] for key in ("start", "end", "tags")} for window in windows],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        return [row for tagging in self for row in tagging.to_rows()]

    def events(self, threshold: float = 0.3, off_threshold: float | None = None) -> list[Event]:
        """Merge overlapping windows into events by their beginning, see `helpers.tagger.events.EventTracker`."""
        tracker = EventTracker(self.labels, threshold, off_threshold, self.classes)
        events = []
        for start, end, scores in zip(self.starts, self.ends, self.scores, strict=True):
            events += tracker.push(float(start), float(end), scores)[0]
        return sorted(events + tracker.finish(), key=lambda event: (event.start, -event.score))


@dataclass(frozen=True, eq=False)
class Embedding:
    """The embedding of a recording or of one window of it."""

    source: str
    start: float  # seconds
    end: float
    vector: np.ndarray  # (C,) float32


@dataclass(frozen=True)
class Failure(_Rows):
    """A recording that could not be tagged, and why."""

    source: str
    error: ValueError | OSError

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source, "error": str(self.error)}

    def to_rows(self) -> list[dict[str, Any]]:
        return []


def _times(source: str, start: float, end: float) -> dict[str, Any]:
    return {"source": source, "start": round(start, 6), "end": round(end, 6)}


def likeliest(
    labels: Sequence[str], scores: np.ndarray, top_k: int, threshold: float = 0.0, classes: Sequence[int] | None = None
) -> tuple[Tag, ...]:
    """Return the `top_k` highest of (K,) scores that reach `threshold`, highest first, equal ones by class."""
    allowed = np.arange(len(labels)) if classes is None else np.asarray(classes, int)
    best = allowed[np.argsort(-scores[allowed], kind="stable")[:top_k]]
    return tuple(Tag(labels[k], float(scores[k])) for k in best if scores[k] >= threshold)


class _Result(Protocol):
    def to_json(self) -> str: ...

    def to_rows(self) -> list[dict[str, Any]]: ...


def results_path(text: str | Path) -> Path:
    """Return the path of a file of results; `ValueError` for another suffix and for a folder."""
    return checked_path(text, SUFFIXES, "results")


def checked_path(text: str | Path, suffixes: Sequence[str], what: str) -> Path:
    """Return the path of a file to be written; `ValueError`, which tells `what` it is, for another suffix and for a folder."""
    path = Path(text)
    if path.suffix.lower() not in suffixes or path.is_dir():
        raise UserError(f"{what} are a file that ends in {' or '.join(suffixes)}, not {path}")
    return path


@contextmanager
def results_file(path: str | Path) -> Iterator[ResultsFile]:
    """Open a .jsonl or .csv file for results. It appears under its name when all are written; after an error, not at all."""
    path = results_path(path)
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,  # names may be no UTF-8
    ):
        yield ResultsFile(file, path.suffix.lower())


class ResultsFile:
    """An open file of results: as JSON, one of them a line; as CSV, their rows, and nothing for a `Failure`."""

    def __init__(self, file: io.TextIOBase, suffix: str) -> None:
        self._file = file
        self._table = csv.DictWriter(file, COLUMNS, lineterminator="\n") if suffix == ".csv" else None
        if self._table:
            self._table.writeheader()

    def write(self, results: Iterable[_Result]) -> None:
        for result in results:
            if self._table:
                self._table.writerows(result.to_rows())
            else:
                self._file.write(result.to_json() + "\n")
