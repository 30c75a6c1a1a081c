"""Parts of long recordings, joined: the mean of scores and embeddings, and events that touch where two parts meet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.archive.parcels import PART_SECONDS
from helpers.archive.queries.reading import Archive
from helpers.archive.schema import METADATA, rounded

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE = 1e-3  # seconds between events that touch

Row = dict[str, Any]


def joined(archive: Archive, shard: int) -> Iterator[pa.Table]:
    """Yield the rows of a shard with one row for each recording (and channel) in place of its parts, some thousand at a time.

    Scores and embeddings are the mean over the parts, weighted with their length: those of `AudioTagger.tag_files`. With top_k,
    a label that a part leaves out counts as 0 there. Rows of windows stay as they are. Of events, those of one label that touch
    at a border of parts become one, with the higher score. Rows of errors stay.
    """
    if archive.unit == "windows":
        yield from archive.batches(shard=shard)
        return
    join = _joined_events if archive.unit == "events" else _joined_parts
    for table in _whole_recordings(archive.batches(shard=shard)):
        yield join(table)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Return lists of equal length as (rows, values); rows without a list are 0."""
    valid = column.is_valid().to_numpy()
    size = column.type.list_size
    values = np.zeros((len(column), size), column.type.value_type.to_pandas_dtype())
    values[valid] = column.drop_null().combine_chunks().flatten().to_numpy().reshape(-1, size)
    return values


def _whole_recordings(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Divide rows elsewhere: between recordings."""
    import pyarrow as pa

    held = None  # rows of the last recording, of which more may come
    for table in tables:
        table = pa.concat_tables([held, table]) if held else table
        changes = np.flatnonzero(_changes(table["source"]))
        complete = changes[-1] if len(changes) else 0
        held = table.slice(complete)
        if complete:
            yield table.slice(0, complete)
    if held:
        yield held


def _changes(sources: pa.ChunkedArray) -> np.ndarray:
    """Whether each row belongs to another recording than the row before it: (rows,)."""
    import pyarrow.compute as pc

    differs = pc.not_equal(sources.slice(1), sources.slice(0, len(sources) - 1))
    return np.concatenate([[False], differs.to_numpy()])


def _joined_parts(table: pa.Table) -> pa.Table:
    recording = np.cumsum(_changes(table["source"]))
    if recording[-1] == len(table) - 1:
        return table
    failed = table["error"].is_valid().to_numpy()
    channel = table["channel"].fill_null(0).to_numpy() if "channel" in table.column_names else np.zeros(len(table), int)
    order = np.lexsort((table["start"].fill_null(0).to_numpy(), channel, failed, recording))
    keys = np.stack([recording, channel, failed * np.arange(1, len(table) + 1)])[:, order]  # each error is on its own
    firsts = np.flatnonzero(np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(0)]))
    table = table.take(order)
    result = table.take(firsts)
    weights = table["end"].fill_null(1).to_numpy() - table["start"].fill_null(0).to_numpy()
    for name in table.column_names:
        if name == "end":
            result = _replaced(result, name, table[name].take(np.append(firsts[1:], len(table)) - 1))
        elif name.partition("_")[0] in ("scores", "embedding"):
            result = _replaced(result, name, _means(table[name], weights, firsts, _is_half(table)))
        elif name.partition("_")[0] == "labels":
            of_scores = "label_scores" + name.removeprefix("labels")
            labels, scores = _tops(table[name].to_pylist(), table[of_scores].to_pylist(), weights, firsts, _is_half(table))
            result = _replaced(_replaced(result, name, labels), of_scores, scores)
        elif name == "warnings":
            result = _replaced(result, name, _united(table[name].to_pylist(), firsts))
    return result


def _means(column: pa.ChunkedArray, weights: np.ndarray, firsts: np.ndarray, is_half: bool) -> pa.Array:
    """The weighted mean of each group of rows, which begin at `firsts`."""
    import pyarrow as pa

    values = matrix(column)
    sums = np.add.reduceat(values.astype(np.float64) * weights[:, None], firsts)
    means = (sums / np.add.reduceat(weights, firsts)[:, None]).astype(np.float32).ravel()
    missing = column.take(firsts).is_null().combine_chunks()
    return pa.FixedSizeListArray.from_arrays(pa.array(rounded(means) if is_half else means), type=column.type, mask=missing)


def _tops(
    labels: list[list[int]], scores: list[list[float]], weights: np.ndarray, firsts: np.ndarray, is_half: bool
) -> tuple[list[list[int]], list[list[float]]]:
    """The labels with the highest weighted mean of each group, as many as its rows have, and these means."""
    tops, means = [], []
    for first, last in zip(firsts, [*firsts[1:], len(labels)], strict=True):
        if labels[first] is None or last - first == 1:
            tops.append(labels[first])
            means.append(scores[first])
            continue
        sums: dict[int, float] = {}
        for row in range(first, last):
            for label, score in zip(labels[row], scores[row], strict=True):
                sums[label] = sums.get(label, 0.0) + score * weights[row] / weights[first:last].sum()
        tops.append(sorted(sums, key=lambda label: (-sums[label], label))[: max(map(len, labels[first:last]))])  # noqa: B023
        values = np.array([sums[label] for label in tops[-1]], np.float32)
        means.append((rounded(values) if is_half else values).tolist())
    return tops, means


def _united(warnings: list[list[str] | None], firsts: np.ndarray) -> list[list[str] | None]:
    groups = (warnings[first:last] for first, last in zip(firsts, [*firsts[1:], len(warnings)], strict=True))
    return [list(dict.fromkeys(text for own in group for text in own or ())) or None for group in groups]


def _is_half(table: pa.Table) -> bool:
    return json.loads(table.schema.metadata[METADATA])["dtype"] == "float16"


def _replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    import pyarrow as pa

    field = table.schema.field(name)
    column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, field.type)
    return table.set_column(table.schema.get_field_index(name), field, column)


def _joined_events(table: pa.Table) -> pa.Table:
    """Join events, and what has none: a recording has one row without a label only if it has no event at all."""
    import pyarrow as pa

    ends = table["end"].fill_null(0).to_numpy()
    if not (ends > PART_SECONDS - TOLERANCE).any():  # no long recording
        return table
    labels = [name for name in table.column_names if name.partition("_")[0] == "label"]
    rows: list[Row] = []
    last: dict[tuple, Row] = {}  # of a recording, channel and classes
    for row in table.to_pylist():
        key = (row["source"], row.get("channel"), *(row[label] for label in labels))
        before = last.get(key)
        if row["error"] is None and before is not None and _touch(before, row):
            before["end"] = row["end"]
            for name in ("score" + label.removeprefix("label") for label in labels):
                before[name] = None if before[name] is None else max(before[name], row[name])
            continue
        rows.append(row)
        if row["error"] is None:
            last[key] = row
    with_events = {(row["source"], row.get("channel")) for row in rows if any(row[label] is not None for label in labels)}
    kept = [
        row
        for row in rows
        if row["error"] is not None
        or any(row[label] is not None for label in labels)
        or (row["source"], row.get("channel")) not in with_events
    ]
    return pa.Table.from_pylist(kept, table.schema)


def _touch(before: Row, row: Row) -> bool:
    """Whether two events meet where two parts do."""
    border = row["start"]
    parts = round(border / PART_SECONDS)
    return parts >= 1 and abs(border - parts * PART_SECONDS) < TOLERANCE and abs(before["end"] - border) < TOLERANCE
