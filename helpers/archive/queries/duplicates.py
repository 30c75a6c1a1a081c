"""Recordings that are copies of others, or nearly so, by their embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from helpers.archive.database import parquet_rows, quoted, require
from helpers.archive.queries.index import Index, vectors
from helpers.archive.queries.reading import connect

QUERY_ROWS = 256  # searched at a time: each may have very many copies
EPSILON = 1e-5  # of cosines in float32


def columns(indexes: Sequence[Index]) -> list[str]:
    """Return the names of what `duplicates` yields."""
    names = ["group", "kind", "similarity", "start", "end"]
    return [*names, *(["output"] if len(indexes) > 1 else []), "source"]


def duplicates(indexes: Sequence[Index], threshold: float) -> Iterator[dict[str, Any]]:
    """Yield groups of rows (recordings, parts of long ones, or windows) whose embeddings have a cosine of at least `threshold`.

    A group is a row and all later ones that are similar to it and in no group yet, in the order of the archive. Its first row has
    the kind "first"; of the others, those of "exact" have the same embedding, to the bit, and the same length, others are "near".
    Groups within one recording are left out. Takes some tens of bytes of memory for each row.
    """
    pa = require("pyarrow")
    leaders, cosines = _groups(indexes, threshold)
    members = np.flatnonzero(np.bincount(leaders, minlength=len(leaders))[leaders] > 1)
    with connect() as connection:
        found = {"number": members, "leader": leaders[members], "similarity": cosines[members].astype(float)}
        connection.register("members", pa.table(found))
        cursor = connection.execute(f"""
            WITH joined AS (
                SELECT number, leader, similarity, output, source, start, "end", hash
                FROM members JOIN ({_numbered(indexes)}) USING (number)
            ), several AS (
                SELECT leader FROM joined GROUP BY leader HAVING count(DISTINCT (output, source)) > 1
            )
            SELECT dense_rank() OVER (ORDER BY leader) AS "group",
                CASE WHEN one.number = leader THEN 'first'
                    WHEN one.hash = first.hash AND one."end" - one.start = first."end" - first.start THEN 'exact'
                    ELSE 'near' END AS kind,
                {", ".join(f'one."{name}"' for name in columns(indexes)[2:])}
            FROM joined AS one JOIN several USING (leader) JOIN joined AS first ON first.number = leader
            ORDER BY leader, one.number""")
        while rows := cursor.fetchmany(1000):
            yield from (dict(zip(columns(indexes), row, strict=True)) for row in rows)


def _groups(indexes: Sequence[Index], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return, of each row of all indexes, the number of the first one of its group, and the cosine to that."""
    same = _first_of_same(indexes)
    leaders, cosines = np.full(len(same), -1), np.ones(len(same), np.float32)
    number = 0
    for index in indexes:
        for queries in vectors(index.archive, index.column):
            for first in range(0, len(queries), QUERY_ROWS):
                numbers = np.arange(number + first, number + min(first + QUERY_ROWS, len(queries)))
                numbers = numbers[(leaders[numbers] < 0) & (same[numbers] == numbers)]
                for row, (values, near) in zip(numbers, _within(indexes, queries[numbers - number], threshold), strict=True):
                    if leaders[row] >= 0:  # by a row of the same search
                        continue
                    free = (leaders[near] < 0) & (same[near] == near)
                    leaders[near[free]], cosines[near[free]] = row, values[free]
                    leaders[row], cosines[row] = row, 1
            number += len(queries)
    return leaders[same], cosines[same]


def _first_of_same(indexes: Sequence[Index]) -> np.ndarray:
    """Return, of each row, the number of the first one with the same embedding, so that a million silent ones are searched once."""
    from pyarrow.parquet import read_table

    hashes = np.concatenate([read_table(index.rows_path, columns=["hash"])["hash"].to_numpy() for index in indexes])
    _, firsts, which = np.unique(hashes, return_index=True, return_inverse=True)
    return firsts[which]


def _within(indexes: Sequence[Index], queries: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield cosines and row numbers, counted through all indexes, of the rows that are similar to each query."""
    if not len(queries):
        return
    found = [
        [(values, near + offset) for values, near in index.within(queries, threshold - EPSILON)]
        for index, offset in zip(indexes, _offsets(indexes), strict=True)
    ]
    for of_query in zip(*found, strict=True):
        yield tuple(map(np.concatenate, zip(*of_query, strict=True)))


def _numbered(indexes: Sequence[Index]) -> str:
    """SQL of what is known of the rows of all indexes, numbered through."""
    return " UNION ALL ".join(
        f'SELECT number + {offset} AS number, {quoted(index.archive.address)} AS output, source, start, "end", hash '
        f"FROM {parquet_rows([str(index.rows_path)])}"
        for index, offset in zip(indexes, _offsets(indexes), strict=True)
    )


def _offsets(indexes: Sequence[Index]) -> list[int]:
    """Return the number of the first row of each index, counted through all of them."""
    return list(accumulate((len(index) for index in indexes), initial=0))[:-1]
