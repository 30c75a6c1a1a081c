"""Results of tagging: small values with a short `repr`, a table in notebooks, dicts, JSON, CSV and pandas."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.tagger.events import Event, EventTracker
from helpers.tagger.rows import Rows, extras, span

TAGS_IN_REPR = 3
ROWS_IN_HTML = 20


@dataclass(frozen=True, repr=False)
class Tag:
    """A class and its score in [0, 1]: sigmoid of the logit, or softmax where a recording has exactly one class."""

    label: str
    score: float

    def __repr__(self) -> str:
        return f"Tag({self.label!r}, {self.score:.3f})"

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, "score": round(self.score, 6)}


@dataclass(frozen=True, repr=False)
class Tagging(Rows, Sequence[Tag]):
    """The top-k tags of a recording or of one window of it, highest score first.

    A sequence of `Tag`; `tagging["Speech"]` is the score of a label, `"Speech" in tagging` whether it is among them.
    """

    source: str
    start: float  # seconds
    end: float
    tags: tuple[Tag, ...]
    warnings: tuple[str, ...] = ()  # what was wrong with the recording
    channel: int | None = None  # that was tagged alone, from 1

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, str):
            return self.tags[index]
        for tag in self.tags:
            if tag.label == index:
                return tag.score
        raise KeyError(f"{index!r} is not among these {len(self)} tags; tag with top_k=None for all classes")

    def __contains__(self, item: object) -> bool:
        return any(item in (tag, tag.label) for tag in self.tags)

    def __repr__(self) -> str:
        tags = [f"{tag.label!r} {tag.score:.3f}" for tag in self.tags[:TAGS_IN_REPR]]
        more = ["..."] if len(self) > TAGS_IN_REPR else []
        times = f"{self.start:.2f} to {self.end:.2f} s"
        return f"Tagging({self.source!r}, {times}, {len(self)} tags: {', '.join(tags + more)}{_more(self)})"

    def _repr_html_(self) -> str:
        bar = '<div style="width: {:.0f}px; height: 0.8em; background: steelblue"></div>'
        rows = [(html.escape(tag.label), f"{tag.score:.3f}", bar.format(120 * tag.score)) for tag in self.tags]
        return _html_table(f"{self.source}, {self.start:.2f} to {self.end:.2f} s", ("label", "score", ""), rows)

    def to_dict(self) -> dict[str, Any]:
        tags = {"tags": [tag.to_dict() for tag in self.tags]}
        return {**span(self.source, self.start, self.end), **tags, **extras(self.warnings, self.channel)}

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row for each tag; where there is none, one without label and score."""
        tags = [tag.to_dict() for tag in self.tags] or [{"label": None, "score": None}]
        return [{**span(self.source, self.start, self.end), **tag, **extras((), self.channel)} for tag in tags]


@dataclass(frozen=True, eq=False, repr=False)
class Timeline(Rows, Sequence[Tagging]):
    """The scores of successive windows of a recording; a sequence of one `Tagging` for each window."""

    source: str
    labels: tuple[str, ...]
    starts: np.ndarray  # (W,) seconds
    ends: np.ndarray  # (W,)
    scores: np.ndarray  # (W, K) float32
    top_k: int | None = 10  # how many tags of each window become part of dicts, JSON, CSV and rows (None: all)
    threshold: float = 0.0  # lowest score of these
    classes: tuple[int, ...] | None = None  # the classes to choose them from (None: all)
    warnings: tuple[str, ...] = ()  # what was wrong with the recording
    channel: int | None = None  # that was tagged alone, from 1

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        tags = top_tags(self.labels, self.scores[index], self.top_k, self.threshold, self.classes)
        return Tagging(self.source, float(self.starts[index]), float(self.ends[index]), tags, channel=self.channel)

    def __repr__(self) -> str:
        classes = len(self.labels if self.classes is None else self.classes)
        times = f"{self.starts[0]:.2f} to {self.ends[-1]:.2f} s"
        return f"Timeline({self.source!r}, {times}, {len(self)} windows, {classes} classes{_more(self)})"

    def _repr_html_(self) -> str:
        rows = []
        for window in self[:ROWS_IN_HTML]:
            tags = ", ".join(f"{tag.label} {tag.score:.3f}" for tag in window[:TAGS_IN_REPR])
            rows.append((f"{window.start:.2f}", f"{window.end:.2f}", html.escape(tags)))
        if len(self) > ROWS_IN_HTML:
            rows.append(("...", "", f"{len(self) - ROWS_IN_HTML} more windows"))
        return _html_table(f"{self.source}, {len(self)} windows", ("start (s)", "end (s)", "tags"), rows)

    def to_dict(self) -> dict[str, Any]:
        windows = [{key: value for key, value in tagging.to_dict().items() if key not in ("source", "channel")} for tagging in self]
        times = span(self.source, float(self.starts[0]), float(self.ends[-1]))
        return {**times, "windows": windows, **extras(self.warnings, self.channel)}

    def to_rows(self) -> list[dict[str, Any]]:
        return [row for tagging in self for row in tagging.to_rows()]

    def events(self, threshold: float = 0.3, off_threshold: float | None = None) -> list[Event]:
        """Merge detections of overlapping windows into events, by their beginning, see `helpers.tagger.events.EventTracker`."""
        tracker = EventTracker(self.labels, threshold, off_threshold, self.classes, self.source)
        events = []
        for start, end, scores in zip(self.starts, self.ends, self.scores, strict=True):
            events += tracker.push(float(start), float(end), scores)[0]
        return sorted(events + tracker.finish(), key=lambda event: (event.start, -event.score))


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """The embedding of a recording or of one window of it."""

    source: str
    start: float  # seconds
    end: float
    vector: np.ndarray  # (C,) float32
    warnings: tuple[str, ...] = ()  # what was wrong with the recording; of windows, the last one has them
    channel: int | None = None  # that was embedded alone, from 1

    def __repr__(self) -> str:
        return f"Embedding({self.source!r}, {self.start:.2f} to {self.end:.2f} s, {len(self.vector)} values{_more(self)})"


@dataclass(frozen=True, repr=False)
class Failure(Rows):
    """A recording that could not be used, and why."""

    source: str
    error: ValueError | OSError

    def __repr__(self) -> str:
        return f"Failure({self.source!r}, {str(self.error)!r})"

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source, "error": str(self.error)}

    def to_rows(self) -> list[dict[str, Any]]:
        return []


def top_tags(
    labels: Sequence[str], scores: np.ndarray, top_k: int | None, threshold: float = 0.0, classes: Sequence[int] | None = None
) -> tuple[Tag, ...]:
    """Return the `top_k` highest (None: all) of (K,) scores that reach `threshold`, highest first, equal ones by class."""
    allowed = np.arange(len(labels)) if classes is None else np.asarray(classes, int)
    best = allowed[np.argsort(-scores[allowed], kind="stable")[:top_k]]
    return tuple(Tag(labels[k], float(scores[k])) for k in best if scores[k] >= threshold)


def _more(result: Tagging | Timeline | Embedding) -> str:
    """What a `repr` says of channel and warnings, if there are any."""
    channel = "" if result.channel is None else f", channel {result.channel}"
    count = len(result.warnings)
    return channel + (f", {count} warning{'s' * (count > 1)}" if count else "")


def _html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML, the caption is text."""
    lines = ["".join(f"<{cell}>{text}</{cell}>" for text in row) for cell, row in [("th", header), *(("td", row) for row in rows)]]
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
