"""Files of embeddings: one row for each recording or window, with its source, its times and the settings it was made with.

| file | holds |
|---|---|
| name.npy | embeddings, (rows, C) float32 |
| name.npy.json, next to it | "info", and "rows": a list of [source, start, end] |
| name.h5 | embeddings (rows, C) float32; start, end (rows,) float64; sources; source (rows,), which of them; attribute info |

Times are in seconds. "info" (in .h5 as JSON) holds model, layers, pooling, the columns of each layer, sample rate, window and hop.
Rows of an .h5 file are written as they come; those of an .npy file are held until the end.

inference.py keeps rows in a journal, name.part, see `helpers.tagger.run_files`, until all are there: an .h5 file does not survive
the end of a process that writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from helpers.tagger.results import Embedding
from helpers.tagger.rows import checked_path
from helpers.tagger.run_files import RunFile
from models.errors import UserError
from models.files import replacing

SUFFIXES = (".npy", ".h5", ".hdf5")
ROWS_AT_ONCE = 1024
CHUNK_VALUES = 1 << 15  # 128 kB
_COLUMNS = {"source": "i8", "start": "f8", "end": "f8"}  # next to the embeddings in .h5


@dataclass(frozen=True, eq=False)
class StoredEmbeddings:
    """The content of a file of embeddings."""

    embeddings: np.ndarray  # (rows, C) float32
    sources: tuple[str, ...]  # of each row
    starts: np.ndarray  # (rows,) seconds
    ends: np.ndarray  # (rows,)
    info: dict[str, Any]

    def columns(self, layer: str) -> np.ndarray:
        """Return the (rows, n) of one layer."""
        return self.embeddings[:, slice(*self.info["columns"][layer])]


def embeddings_path(text: str | Path) -> Path:
    """Return the path of a file of embeddings; `UserError` for another suffix and for a folder."""
    return checked_path(text, SUFFIXES, "embeddings")


def write_embeddings(path: str | Path, rows: Iterable[Embedding], size: int, info: dict[str, Any]) -> int:
    """Write rows of `size` values each; return how many. The file appears when all are written; after an error, not at all."""
    path = embeddings_path(path)
    if path.suffix.lower() == ".npy":
        return _write_npy(path, rows, size, info)
    import h5py  # not needed for anything else in inference

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["info"] = json.dumps(info)
        table = {
            "embeddings": file.create_dataset(
                "embeddings", (0, size), "f4", maxshape=(None, size), chunks=(max(1, CHUNK_VALUES // size), size)
            ),
            **{key: file.create_dataset(key, (0,), kind, maxshape=(None,)) for key, kind in _COLUMNS.items()},
        }
        sources: dict[str, int] = {}
        count, rows = 0, iter(rows)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            values = {
                "embeddings": np.stack([row.vector for row in batch]),
                "source": [sources.setdefault(row.source, len(sources)) for row in batch],
                "start": [row.start for row in batch],
                "end": [row.end for row in batch],
            }
            for key, dataset in table.items():
                dataset.resize(count + len(batch), axis=0)
                dataset[count:] = values[key]
            count += len(batch)
        names = [escaped(source) for source in sources]
        file.create_dataset("sources", data=names, dtype=h5py.string_dtype())
    return count


def _about_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_npy(path: Path, rows: Iterable[Embedding], size: int, info: dict[str, Any]) -> int:
    with replacing(_about_path(path)) as about_path, replacing(path) as temporary, open(temporary, "wb") as file:
        held = list(rows)
        embeddings = np.stack([row.vector for row in held]) if held else np.zeros((0, size), np.float32)
        about = {"info": info, "rows": [[row.source, row.start, row.end] for row in held]}
        about_path.write_text(json.dumps(about), encoding="utf-8")
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(embeddings))
        file.write(embeddings.data)  # np.save does not notice a full disk
    return len(held)


def read_embeddings(path: str | Path) -> StoredEmbeddings:
    """Read a file that `write_embeddings` wrote; `UserError` if an .npy file and its .npy.json have different rows."""
    path = embeddings_path(path)
    if path.suffix.lower() == ".npy":
        embeddings, about = np.load(path, allow_pickle=False), json.loads(_about_path(path).read_bytes())
        if len(embeddings) != len(about["rows"]):
            raise UserError(f"{path} has {len(embeddings)} rows and {_about_path(path)} {len(about['rows'])}; write them again")
        sources, starts, ends = zip(*about["rows"], strict=True) if about["rows"] else ((), (), ())
        return StoredEmbeddings(embeddings, tuple(sources), np.array(starts), np.array(ends), about["info"])
    import h5py

    with h5py.File(path, "r") as file:
        names = file["sources"].asstr()[:]
        sources = tuple(names[number] for number in file["source"][:])
        return StoredEmbeddings(file["embeddings"][:], sources, file["start"][:], file["end"][:], json.loads(file.attrs["info"]))


def escaped(source: str) -> str:
    """Return a name as a file holds it: names of files may be no UTF-8."""
    return source.encode("utf-8", "backslashreplace").decode()


def stored_sources(path: Path, info: dict[str, Any]) -> set[str]:
    """Return the names of the recordings in a file, `escaped`; `UserError` unless it was made with the same settings."""
    if path.suffix.lower() == ".npy":
        about = json.loads(_about_path(path).read_bytes())
        found, sources = about["info"], {escaped(source) for source, _, _ in about["rows"]}
    else:
        import h5py

        with h5py.File(path, "r") as file:
            found, sources = json.loads(file.attrs["info"]), set(file["sources"].asstr()[:])
    for name, value in json.loads(json.dumps(info)).items():
        if found.get(name) != value:
            raise UserError(f"{path} was made with {name} {found.get(name)}, not {value}; write to another file")
    return sources


def stored_rows(path: Path) -> Iterator[Embedding]:
    """Yield the rows of a file that `write_embeddings` wrote; those of an .h5 file in constant memory."""
    if path.suffix.lower() == ".npy":
        stored = read_embeddings(path)
        yield from map(Embedding, stored.sources, stored.starts.tolist(), stored.ends.tolist(), stored.embeddings)
        return
    import h5py

    with h5py.File(path, "r") as file:
        names = file["sources"].asstr()[:]
        for first in range(0, len(file["source"]), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            sources = (names[number] for number in file["source"][part])
            yield from map(Embedding, sources, file["start"][part].tolist(), file["end"][part].tolist(), file["embeddings"][part])


def journal_bytes(row: Embedding) -> bytes:
    """Return a row as a journal holds it: start, end and vector."""
    return np.array([row.start, row.end], "<f8").tobytes() + row.vector.astype("<f4").tobytes()


def journal_rows(journal: RunFile, size: int) -> Iterator[Embedding]:
    """Yield the rows of `size` values in a journal, which holds nothing else."""
    with open(journal.path, "rb") as file:
        for done in journal.finished():
            for _ in range(done.rows):
                start, end = np.frombuffer(file.read(16), "<f8").tolist()
                yield Embedding(done.source, start, end, np.frombuffer(file.read(4 * size), "<f4"))
