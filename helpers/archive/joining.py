"""Parts of long recordings, joined: the mean of scores and embeddings, and events that touch where two parts meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.archive.reading import Archive

if TYPE_CHECKING:
    import pyarrow as pa

PART_SECONDS = 600.0
TOLERANCE = 1e-3  # seconds between events that touch
MEANS = ("scores", "embedding")  # names of columns, before a model's suffix


def joined(archive: Archive, file: str) -> Iterator[pa.Table]:
    """Yield the rows of one file with one row for each recording (and channel) in place of its parts, some thousand at a time.

    Scores and embeddings are the mean over the parts, weighted with their length: those of `AudioTagger.tag_files`. With top_k,
    a label that a part leaves out counts as 0 there. Rows of windows stay as they are. Of events, those of one label that touch
    at a border of parts become one, with the higher score. Rows of errors stay.
    """
    import pyarrow as pa

    join = _joined_events if archive.has_events else _joined_parts
    held = None  # rows of the last recording, of which more may come
    for batch in archive.batches(file=file):
        table = pa.Table.from_batches([batch])
        if archive.has_windows:
            yield table
            continue
        table = pa.concat_tables([held, table]) if held else table
        changes = np.flatnonzero(_changes(table["source"]))
        complete = changes[-1] if len(changes) else 0
        held = table.slice(complete)
        if complete:
            yield join(table.slice(0, complete))
    if held:
        yield join(held)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Return lists of equal length as (rows, values); rows without a list are 0."""
    valid = column.is_valid().to_numpy()
    size = column.type.list_size
    values = np.zeros((len(column), size), column.type.value_type.to_pandas_dtype())
    values[valid] = column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return values


def _changes(sources: pa.ChunkedArray) -> np.ndarray:
    """Whether each row is the first of its recording: (rows,)."""
    import pyarrow.compute as pc

    differs = pc.not_equal(sources.slice(1), sources.slice(0, len(sources) - 1))
    return np.concatenate([[False], differs.to_numpy(zero_copy_only=False)])  # the very first row is no change


def _joined_parts(table: pa.Table) -> pa.Table:
    recording = np.cumsum(_changes(table["source"]))
    if len(np.unique(recording)) == len(table):
        return table
    failed = table["error"].is_valid().to_numpy()
    start = table["start"].fill_null(0).to_numpy()
    channel = table["channel"].fill_null(0).to_numpy() if "channel" in table.column_names else np.zeros(len(table))
    order = np.lexsort((start, channel, failed, recording))
    table = table.take(order)
    keys = np.stack([recording, channel, failed * np.arange(1, len(table) + 1)])[:, order]  # each error is its own
    firsts = np.flatnonzero(np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(0)]))
    end, start = table["end"].fill_null(1).to_numpy(), table["start"].fill_null(0).to_numpy()
    weights = end - start
    result = table.take(firsts)
    for name in table.column_names:
        column = table[name]
        if name == "end":
            result = _replaced(result, name, column.take(np.append(firsts[1:], len(table)) - 1))
        elif name.startswith(MEANS) and name.partition("_")[0] in MEANS:
            result = _replaced(result, name, _means(column, weights, firsts))
    return _with_top(table, result, weights, firsts)


def _means(column: pa.ChunkedArray, weights: np.ndarray, firsts: np.ndarray) -> pa.Array:
    """The weighted mean of each group of rows, which begin at `firsts`; of one row itself."""
    import pyarrow as pa

    values = matrix(column)
    sums = np.add.reduceat(values.astype(np.float64) * weights[:, None], firsts)
    means = (sums / np.add.reduceat(weights, firsts)[:, None]).astype(values.dtype)
    missing = column.take(firsts).is_null().combine_chunks()
    return pa.FixedSizeListArray.from_arrays(pa.array(means.ravel()), type=column.type, mask=missing)


def _with_top(table: pa.Table, result: pa.Table, weights: np.ndarray, firsts: np.ndarray) -> pa.Table:
    """Join the lists of top labels and their scores, as many as the first part has."""
    for name in [name for name in table.column_names if name.partition("_")[0] == "labels"]:
        of_scores = "label_scores" + name.removeprefix("labels")
        rows = list(zip(table[name].to_pylist(), table[of_scores].to_pylist(), strict=True))
        labels, scores = [], []
        for first, last in zip(firsts, [*firsts[1:], len(rows)], strict=True):
            kept = rows[first] if last - first == 1 else _top(rows[first:last], weights[first:last])
            labels.append(kept[0])
            scores.append(kept[1])
        result = _replaced(_replaced(result, name, labels), of_scores, scores)
    return result


def _top(rows: list[tuple[list[int], list[float]]], weights: np.ndarray) -> tuple[list[int], list[np.float16]]:
    sums: dict[int, float] = {}
    for (labels, scores), weight in zip(rows, weights / weights.sum(), strict=True):
        for label, score in zip(labels, scores, strict=True):
            sums[label] = sums.get(label, 0.0) + weight * float(score)
    kept = sorted(sums, key=lambda label: (-sums[label], label))[: max(len(labels) for labels, _ in rows)]
    return kept, [np.float16(sums[label]) for label in kept]


def _replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    import pyarrow as pa

    field = table.schema.field(name)
    column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, field.type)
    return table.set_column(table.schema.get_field_index(name), field, column)


def _joined_events(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    ends = table["end"].fill_null(0).to_numpy()
    at_border = np.abs(ends - np.round(ends / PART_SECONDS) * PART_SECONDS) < TOLERANCE
    if not (at_border & (ends > TOLERANCE)).any():
        return table
    rows = []
    open_ends: dict[tuple, dict[str, Any]] = {}  # the last event of a recording, channel and label that ends at a border
    for row, border in zip(table.to_pylist(), at_border, strict=True):
        [label] = [name for name in row if name.partition("_")[0] == "label" and not name.startswith("label_scores")]
        score = "score" + label.removeprefix("label")
        key = (row["source"], row.get("channel"), row[label])
        before = open_ends.pop(key, None)
        if row[label] is not None and before and abs(before["end"] - row["start"]) < TOLERANCE:
            before["end"], before[score] = row["end"], max(before[score], row[score])
            row = before
        else:
            rows.append(row)
        if border and row[label] is not None:
            open_ends[key] = row
    return pa.Table.from_pylist(rows, table.schema)
