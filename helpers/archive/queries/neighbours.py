"""The recordings of an archive that are most similar to one recording, by their embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from helpers.archive.database import parquet_rows, quoted
from helpers.archive.queries.index import Index, normalized
from helpers.archive.queries.reading import Archive, StoredModel, connect
from helpers.tagger.results import Failure
from models.errors import UserError

SEARCHED = (4, 16, 64, 256)  # rows for each neighbour asked for, until there are enough recordings
QUERY_ROWS = 1024


def columns(indexes: Sequence[Index]) -> list[str]:
    """Return the names of what `neighbours` yields."""
    return ["similarity", "start", "end", *(["output"] if len(indexes) > 1 else []), "source"]


def stored_embeddings(archives: Sequence[Archive], model: StoredModel, source: str) -> np.ndarray:
    """Return the embeddings of a recording of the archives, (n, C) of length 1; n is 0 where there is none of that name."""
    found = []
    with connect(archives) as connection:
        for archive in archives:
            column = archive.require("embedding", model, "with --embed")
            query = f"SELECT {column} FROM {archive.rows()} WHERE source = {quoted(source)} AND {column} IS NOT NULL"
            found += [np.array(row) for (row,) in connection.execute(query).fetchall()]
    return normalized(np.stack(found)) if found else np.zeros((0, 1), np.float32)


def file_embeddings(archive: Archive, model: StoredModel, path: str) -> np.ndarray:
    """Embed a file as the archive's recordings were, by the same model; return (n, C) of length 1.

    Raises FileNotFoundError, AudioError, and UserError where the model's file has changed since, which its hash shows.
    """
    from helpers.archive.options import model_hash
    from helpers.tagger import AudioTagger

    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is neither a recording of {archive.address} nor a file")
    settings = archive.manifest["settings"]
    name = settings["models"][archive.models.index(model)]
    options = {key: settings[key] for key in ("backend", "min_seconds", "layers", "pooling")}
    tagger = AudioTagger(name, **options)
    if (found := model_hash(tagger, name, settings["backend"])) != model.sha256:
        raise UserError(
            f"{name} is not the model that made {archive.address}: its SHA-256 is {found[:16]}... instead of {model.sha256[:16]}..."
        )
    reading = {key: settings[key] for key in ("window", "hop", "channel", "strict") if settings[key] is not None}
    results = list(tagger.embed_files([path], **reading))
    for result in results:
        if isinstance(result, Failure):
            raise result.error
    return normalized(np.stack([result.vector for result in results]))


def neighbours(indexes: Sequence[Index], queries: np.ndarray, count: int, source: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the `count` recordings nearest to one with the embeddings (n, C), highest cosine first, without itself, the `source`.

    Of a recording with several rows (windows, or parts of a long one), the one that is nearest to any of the query's counts.
    """
    names = columns(indexes)
    found = []
    with connect() as connection:
        for index in indexes:
            for factor in SEARCHED:  # rows of one recording, or of the query's, may fill a search
                rows = _described(connection, index, _nearest(index, queries, factor * count), source)
                if len(rows) >= count or factor * count >= len(index):
                    break
            found += [{**row, "output": index.archive.address} for row in rows]
    found.sort(key=lambda row: -row["similarity"])
    yield from ({name: row[name] for name in names} for row in found[:count])


def _nearest(index: Index, queries: np.ndarray, wanted: int) -> dict[int, float]:
    """Return row numbers with their cosine to the nearest query."""
    nearest: dict[int, float] = {}
    for first in range(0, len(queries), QUERY_ROWS):
        cosines, numbers = index.search(queries[first : first + QUERY_ROWS], wanted)
        for cosine, number in zip(cosines.ravel().tolist(), numbers.ravel().tolist(), strict=True):
            if number >= 0:
                nearest[number] = max(cosine, nearest.get(number, -1.0))
    return nearest


def _described(connection: Any, index: Index, nearest: dict[int, float], source: str | None) -> list[dict[str, Any]]:
    """Return the best row of each recording, with its source and times, without those of `source`."""
    numbers = ", ".join(map(str, nearest)) or "NULL"
    query = f'SELECT number, source, start, "end" FROM {parquet_rows([str(index.rows_path)])} WHERE number IN ({numbers})'
    best: dict[str, dict[str, Any]] = {}
    for number, name, start, end in connection.execute(query).fetchall():
        similarity = nearest[number]
        if name != source and (name not in best or best[name]["similarity"] < similarity):
            best[name] = {"similarity": similarity, "start": start, "end": end, "source": name}
    return list(best.values())
