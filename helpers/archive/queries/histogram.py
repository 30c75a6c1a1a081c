"""Counts over an archive: of its labels, the scores of one label, durations and failures; as text and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from helpers.archive.queries.best import rows_of_label
from helpers.archive.queries.joining import joined, matrix
from helpers.archive.queries.reading import Archive, StoredModel, connect
from models.command import printable
from models.files import write_atomically

BINS = 20  # of scores
BAR = 40  # characters of the longest bar
DURATIONS = (0, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600)  # edges in seconds


@dataclass(frozen=True)
class Histogram:
    """Bars with a name and a count each."""

    title: str
    bars: tuple[tuple[str, int], ...]

    def text(self) -> str:
        """Return the title, and a line with a bar of characters for each count."""
        width = max((len(name) for name, _ in self.bars), default=0)
        highest = max((count for _, count in self.bars), default=0) or 1
        lines = [
            f"{printable(name):>{width}}  {count:>10,}  {'#' * -(-BAR * count // highest)}".rstrip() for name, count in self.bars
        ]
        return "\n".join([self.title, *lines])

    def draw(self, path: Path) -> None:
        """Draw horizontal bars into a file, whose suffix decides the format; it appears when it is complete."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 1.2 + 0.24 * len(self.bars)), layout="constrained")
        axes = figure.subplots()
        counts = [count for _, count in self.bars]
        bars = axes.barh(range(len(counts)), counts, color="0.75", edgecolor="0.25")
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4, fontsize="small")
        axes.set_yticks(range(len(counts)), [printable(name) for name, _ in self.bars], fontsize="small", parse_math=False)
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * max([*counts, 1]))
        axes.set_title(self.title, loc="left", fontsize="medium", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=130))


def labels(archives: Sequence[Archive], model: StoredModel, threshold: float, top_k: int) -> Histogram:
    """Count the recordings, windows or events in which each label reaches the threshold; the `top_k` most frequent ones."""
    label, listed, scored = (name + model.suffix for name in ("label", "labels", "scores"))
    counts, rows = np.zeros(len(model.labels), int), 0
    for archive in archives:
        archive.require_scores(model)
        for table in (table for shard in archive.shards for table in joined(archive, shard)):
            table = table.filter(table["error"].is_null())
            if label in archive.columns:
                table = table.filter(table[label].is_valid())
                found, values = (table[name].to_numpy() for name in (label, f"score{model.suffix}"))
                counts += np.bincount(found[values >= threshold], minlength=len(counts))
            elif listed in archive.columns:
                names = (listed, f"label_scores{model.suffix}")
                found, values = (table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in names)
                counts += np.bincount(found[values >= threshold], minlength=len(counts))
            else:
                counts += (matrix(table[scored]) >= threshold).sum(0)
            rows += len(table)
    order = [k for k in np.argsort(-counts, kind="stable")[:top_k] if counts[k]]
    title = f"{archives[0].unit} in which a label has a score of at least {threshold:g}, of {rows:,}"
    return Histogram(title, tuple((model.labels[k], int(counts[k])) for k in order))


def scores(archives: Sequence[Archive], model: StoredModel, label: str) -> Histogram:
    """Count recordings (parts of long ones joined), windows or events by their score of a label."""
    with connect(archives) as connection:
        rows = rows_of_label(archives, model, label)
        query = f"SELECT least(floor(score * {BINS}), {BINS - 1})::INT AS bin, count(*) FROM ({rows}) GROUP BY bin"
        counts = dict(connection.execute(query).fetchall())
    title = f"{archives[0].unit} by their score of {model.labels[model.class_index(label)]}, {sum(counts.values()):,} in all"
    return Histogram(title, tuple((f"{k / BINS:.2f} to {(k + 1) / BINS:.2f}", counts.get(k, 0)) for k in range(BINS)))


def durations(archives: Sequence[Archive]) -> Histogram:
    """Count recordings by their length; in archives of events, events."""
    if archives[0].unit == "events":
        what, of_archive = "events", 'SELECT "end" - start AS seconds FROM {} WHERE error IS NULL'
    else:
        what, of_archive = "recordings", 'SELECT max("end") - min(start) AS seconds FROM {} WHERE error IS NULL GROUP BY source'
    rows = " UNION ALL ".join(of_archive.format(archive.rows()) for archive in archives)
    number = " + ".join(f"(seconds >= {edge})::INT" for edge in DURATIONS[1:])
    with connect(archives) as connection:
        bins = connection.execute(f"SELECT {number} AS bin, count(*), sum(seconds) FROM ({rows}) GROUP BY bin").fetchall()
    counts = {number: count for number, count, _ in bins}
    hours = sum(seconds for *_, seconds in bins) / 3600
    title = f"{what} by their length, {sum(counts.values()):,} in all, {hours:,.2f} hours"
    names = [f"{_time(low)} to {_time(high)}" for low, high in pairwise(DURATIONS)] + [f"{_time(DURATIONS[-1])} or longer"]
    used = range(min(counts), max(counts) + 1) if counts else ()
    return Histogram(title, tuple((names[k], counts.get(k, 0)) for k in used))


def failures(archives: Sequence[Archive]) -> Histogram:
    """Count recordings that could not be used, by the kind of error."""
    rows = " UNION ALL ".join(
        f"SELECT DISTINCT source, error_kind FROM {archive.rows()} WHERE error IS NOT NULL" for archive in archives
    )
    with connect(archives) as connection:
        query = f"SELECT error_kind, count(*) AS count FROM ({rows}) GROUP BY error_kind ORDER BY count DESC, error_kind"
        counts = connection.execute(query).fetchall()
    total = sum(count for _, count in counts)
    return Histogram(f"failures by their kind, {total:,} in all", tuple((kind or "unknown", count) for kind, count in counts))


def _time(seconds: int) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
