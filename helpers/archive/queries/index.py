"""An index of an archive's embeddings (faiss): exact for a small archive, inverted lists on the disk for a large one.

The folder of an index, by default index/embedding in the output (with several models: index/embedding_MODEL), holds

| file | content |
|---|---|
| about.json | what it was made of: hash of the model, and name, size and time of change of each file |
| vectors.faiss | the index; its ids are row numbers |
| vectors.lists | of a large archive: the vectors, float16 |
| rows.parquet | number, source, start, end, channel, and a hash of the embedding of each row |

Vectors have length 1, so the inner product is the cosine. Of a large archive, blocks of vectors are indexed one by one and merged
on the disk, so memory grows with the number of lists, the square root of that of rows.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.archive.database import require
from helpers.archive.queries.joining import matrix
from helpers.archive.queries.reading import Archive, StoredModel
from helpers.archive.storage import is_remote, opened, status
from models.errors import UserError
from models.files import replacing_folder, write_bytes

if TYPE_CHECKING:
    import faiss
    import pyarrow as pa

FOLDER, ABOUT, VECTORS, LISTS, ROWS = "index", "about.json", "vectors.faiss", "vectors.lists", "rows.parquet"
EXACT_UP_TO = 50_000  # rows
BLOCK_ROWS = 100_000  # indexed at a time
TRAINING_ROWS_PER_LIST = 45
ITERATIONS = 10  # of k-means
PROBES, NEAR_PROBES = 16, 2  # lists that are looked into for neighbours; for what is nearly the same, which lies in the same list
VERSION = 1
_NO_EMBEDDING = "the archive has no embedding: none of its recordings could be used"


@dataclass(frozen=True)
class Index:
    """An index that is up to date."""

    archive: Archive
    column: str  # of the embeddings
    rows_path: Path
    faiss: faiss.Index

    def __len__(self) -> int:
        return self.faiss.ntotal

    def search(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, C) of length 1 -> cosines and row numbers, (n, count) each, nearest first; numbers are -1 where there are no more."""
        self._look_into(PROBES)
        return self.faiss.search(vectors, count)

    def within(self, vectors: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the cosines of at least `threshold` and the row numbers for each of (n, C)."""
        self._look_into(NEAR_PROBES)
        limits, cosines, numbers = self.faiss.range_search(vectors, threshold)
        for first, last in pairwise(limits.astype(int)):
            yield cosines[first:last], numbers[first:last]

    def _look_into(self, lists: int) -> None:
        if hasattr(self.faiss, "nprobe"):  # not where it is exact
            self.faiss.nprobe = lists


def open_index(archive: Archive, model: StoredModel, folder: Path | None = None) -> Index:
    """Open the index of an archive; it is made where there is none, or where the archive has changed since.

    `folder` is where indexes of this archive are kept (None: in the archive). Raises UserError for an archive without embeddings,
    for one behind an address without a `folder`, and for a folder of something else or a damaged one.
    """
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it reports which variants of itself it tries
    faiss = require("faiss")
    column = archive.require("embedding", model, "with --embed")
    if folder is None:
        if is_remote(archive.address):
            raise UserError(f"{archive.address} is no folder of this machine; give one for its index by --index")
        folder = Path(archive.address) / FOLDER
    folder = folder / column
    about = {
        "version": VERSION,
        "model": model.sha256,
        "files": [[os.path.basename(file), *status(file)] for file in archive.files()],
    }
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise UserError(f"{folder} is no index; give another folder by --index, or remove it")
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        found = None
    if found != about:
        what = "is made" if found is None else "is outdated and made again"
        print(f"the index of {archive.address} {what}: {folder}", file=sys.stderr)
        try:
            _build(folder, archive, column, about)
        except RuntimeError as error:  # of faiss, such as of a full disk
            raise UserError(f"{folder} cannot be written: {str(error).splitlines()[-1]}") from error
    flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR  # of lists on the disk, wherever the folder is now
    try:
        with _without_messages():
            index = faiss.read_index(os.fspath(folder / VECTORS), flags)
    except RuntimeError as error:  # of faiss
        raise UserError(f"{folder} is damaged; remove it, and it is made again") from error
    return Index(archive, column, folder / ROWS, index)


def vectors(archive: Archive, column: str) -> Iterator[np.ndarray]:
    """Yield embeddings of length 1, (n, C) float32, in the order of the index's row numbers."""
    for table in _embedded_rows(archive, column):
        yield normalized(matrix(table[column]))


def _embedded_rows(archive: Archive, column: str) -> Iterator[pa.Table]:
    """Yield source, start, end, maybe channel, and embedding of the rows that have one."""
    names = ["source", "start", "end", *(["channel"] if "channel" in archive.columns else []), column]
    for table in archive.batches(names):
        table = table.filter(table[column].is_valid())
        if len(table):
            yield table


def normalized(embeddings: np.ndarray) -> np.ndarray:
    """Return (n, C) float32 of length 1; zeros stay zeros."""
    values = embeddings.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _build(folder: Path, archive: Archive, column: str, about: dict[str, Any]) -> None:
    """Write the files of an index; the folder is there when it is complete."""
    shutil.rmtree(folder, ignore_errors=True)  # an outdated one
    with replacing_folder(folder) as temporary:
        number_of_rows = sum(_number_of_rows(file) for file in archive.files())  # those of errors count, which does not matter
        batches = _written(_embedded_rows(archive, column), column, temporary / ROWS)
        if number_of_rows <= EXACT_UP_TO:
            _build_exact(temporary, batches)
        else:
            trained = _trained(archive, column, number_of_rows)
            _build_lists(temporary, batches, trained)
        write_bytes(temporary / ABOUT, json.dumps(about).encode())


def _number_of_rows(file: str) -> int:
    from pyarrow.parquet import read_metadata

    with opened(file) as content:
        return read_metadata(content).num_rows


def _written(tables: Iterable[pa.Table], column: str, path: Path) -> Iterator[np.ndarray]:
    """Write what is known of the rows, and yield their vectors, (n, C). Raises UserError where there are none."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    writer, count = None, 0
    for table in tables:
        embeddings = matrix(table[column])
        hashes = [
            int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True) for row in embeddings
        ]
        rows = table.drop_columns([column]).append_column("hash", pa.array(hashes, pa.int64()))
        rows = rows.add_column(0, "number", pa.array(np.arange(count, count + len(rows))))
        writer = writer or ParquetWriter(path, rows.schema)
        writer.write_table(rows)
        count += len(rows)
        yield normalized(embeddings)
    if writer is None:
        raise UserError(_NO_EMBEDDING)
    writer.close()


def _build_exact(folder: Path, batches: Iterable[np.ndarray]) -> None:
    import faiss

    index = None
    for vectors in batches:
        index = faiss.IndexFlatIP(vectors.shape[1]) if index is None else index
        index.add(vectors)
    faiss.write_index(index, os.fspath(folder / VECTORS))


def _trained(archive: Archive, column: str, number_of_rows: int) -> faiss.Index:
    """Return an empty index with a list for each of 2 sqrt(rows) centres, which k-means finds in vectors drawn at random."""
    import faiss

    lists = round(2 * number_of_rows**0.5)
    share = min(1.0, TRAINING_ROWS_PER_LIST * lists / number_of_rows)
    generator = np.random.default_rng(0)
    drawn = []
    for table in _embedded_rows(archive, column):
        chosen = np.flatnonzero(generator.random(len(table)) < share)
        drawn.append(normalized(matrix(table[column].take(chosen))))
    if not drawn:
        raise UserError(_NO_EMBEDDING)
    sample = np.concatenate(drawn)
    size = sample.shape[1]
    quantizer = faiss.IndexFlatIP(size)
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(quantizer, size, min(lists, len(sample)), kind, faiss.METRIC_INNER_PRODUCT, False)
    index.cp.niter = ITERATIONS
    index.train(sample)
    return index


def _build_lists(folder: Path, batches: Iterable[np.ndarray], trained: faiss.Index) -> None:
    """Index blocks of vectors one by one, and merge them on the disk."""
    import faiss
    from faiss.contrib.ondisk import merge_ondisk

    files: list[str] = []
    count = 0

    def write(block: faiss.Index) -> None:
        files.append(os.fspath(folder / f"block-{len(files)}"))
        faiss.write_index(block, files[-1])

    block = faiss.clone_index(trained)
    for vectors in batches:
        block.add_with_ids(vectors, np.arange(count, count + len(vectors)))
        count += len(vectors)
        if block.ntotal >= BLOCK_ROWS:
            write(block)
            block = faiss.clone_index(trained)
    write(block)
    with _without_messages():
        merge_ondisk(trained, files, os.fspath(folder / LISTS))
    faiss.write_index(trained, os.fspath(folder / VECTORS))
    for file in files:
        os.remove(file)


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Drop what faiss prints on standard output, where answers are printed."""
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            libc.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
