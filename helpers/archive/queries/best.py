"""The recordings, or windows or events of them, with the highest scores of a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.archive.database import quoted
from helpers.archive.queries.reading import Archive, StoredModel, connect


def columns(archives: Sequence[Archive]) -> list[str]:
    """Return the names of what `best` returns."""
    names = ["score", "start", "end"]
    names += ["channel"] if "channel" in archives[0].columns else []
    names += ["output"] if len(archives) > 1 else []
    return [*names, "source"]


def best(
    archives: Sequence[Archive], model: StoredModel, label: str, top_k: int, threshold: float = 0.0, every_row: bool = False
) -> list[dict[str, Any]]:
    """Return the `top_k` recordings of at least `threshold`, highest score of the label first.

    A recording is there once. It has the score of its best window or event, with its times, or the mean of its parts, weighted
    with their length. With `every_row`, each window, event or part stands for itself. Times are in seconds.
    """
    names = columns(archives)
    rows = rows_of_label(archives, model, label, every_part=every_row)
    if not every_row and archives[0].unit != "recordings":
        times = 'arg_max(start, score) AS start, arg_max("end", score) AS "end"'
        rows = f"SELECT output, source, channel, {times}, max(score) AS score FROM ({rows}) GROUP BY output, source, channel"
    query = f"""
        SELECT {", ".join(f'"{name}"' for name in names)} FROM ({rows}) WHERE score >= {float(threshold)}
        ORDER BY score DESC, output, source, channel, start LIMIT {int(top_k)}"""
    with connect(archives) as connection:
        return [dict(zip(names, row, strict=True)) for row in connection.execute(query).fetchall()]


def rows_of_label(archives: Sequence[Archive], model: StoredModel, label: str, *, every_part: bool = False) -> str:
    """SQL of the scores of a label: output, source, channel, start, end and score of each recording, window or event.

    The score of a long recording is the mean of those of its parts, weighted with their length, but with `every_part`.
    """
    rows = " UNION ALL ".join(
        f"SELECT {quoted(archive.address)} AS output, * FROM ({archive.scored_rows(model, model.class_index(label))})"
        for archive in archives
    )
    if every_part or archives[0].unit != "recordings":
        return rows
    return f"""SELECT output, source, channel, min(start) AS start, max("end") AS "end",
            sum(score::DOUBLE * ("end" - start)) / sum("end" - start) AS score
        FROM ({rows}) GROUP BY output, source, channel"""
