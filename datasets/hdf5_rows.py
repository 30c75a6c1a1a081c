"""Rows of HDF5 files, read without libhdf5, which on damaged files hangs, crashes or follows links to other files.

libhdf5 says once where the rows lie, in a process of its own that may hang or crash. From then on they are plain reads, whose
positions and lengths are checked. The layout of variable-length rows is section III.E, "Global Heap", of the HDF5 File Format
Specification.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO, FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError

TIME_LIMIT_S = 60  # for libhdf5
MAX_BYTES = 2**30  # of a row
MAX_UNPACKED_BYTES = 2**28  # of compressed rows, which stay in memory: targets of AudioSet have 2**27
_REFERENCE = struct.Struct("<IQI")  # of a variable-length row: its length, where its heap begins, its number in there
_HEAP = struct.Struct("<4sB3xQ")  # signature, version, bytes of the heap
_OBJECT = struct.Struct("<HH4xQ")  # number, references, bytes
_MAX_OBJECTS = 2**16  # in a heap
_VARIABLE = ("uint8s", "text")  # kinds of rows of variable length
_DEFLATE, _SHUFFLE = 1, 2  # numbers of filters


class Hdf5Error(UserError):
    """A file is not of the layout that is read, does not fit the classes asked for, or an entry does not fit the layout."""


@dataclass(frozen=True)
class Rows:
    """The rows of a data set, and where they lie in the file."""

    shape: tuple[int, ...]
    kind: str  # "bytes" of one length, "uint8", variable-length "uint8s" or "text", or another type's name
    row_bytes: int
    chunk_rows: int
    chunk_bytes: int  # of each row in a chunk
    chunks: np.ndarray  # (chunks of rows, chunks of bytes) int64: where each begins, in the file or in the next
    version: tuple[int, ...]  # of the file, see `_version`
    unpacked: bytes | None = None  # all chunks, where they are compressed in the file

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, file: FileIO, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1 as they are stored, (n, row_bytes) uint8. ValueError where the file is damaged or another one."""
        if _version(file) != self.version:
            raise ValueError("it was replaced or changed after it was opened; start again")
        source = file if self.unpacked is None else BytesIO(self.unpacked)
        parts = []
        while start < stop:
            chunk, first = divmod(start, self.chunk_rows)
            count = min(stop - start, self.chunk_rows - first)
            begins = self.chunks[chunk] + first * self.chunk_bytes
            columns = [_read(source, int(begin), count * self.chunk_bytes) for begin in begins]
            columns = [np.frombuffer(column, np.uint8).reshape(count, -1) for column in columns]
            parts.append((columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1))[:, : self.row_bytes])
            start += count
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, self.row_bytes), np.uint8), *parts])

    def read_one(self, file: FileIO, row: int) -> bytes:
        """One row, of any kind. ValueError where the file is damaged."""
        stored = self.read(file, row, row + 1).tobytes()
        return _heap_object(file, *_REFERENCE.unpack(stored)) if self.kind in _VARIABLE else stored


def find_rows(path: Path, names: Sequence[str], *, locking: bool = False) -> tuple[dict[str, Rows], list[str], int | None]:
    """Return the data sets of these names that are in a file's root, some names of what else is there, and `num_classes`.

    The last is an attribute of the file. Rows compressed by gzip are unpacked here and stay in memory. Raises Hdf5Error for a file
    that is damaged, or whose data lie in other files, and TimeoutError for one on which libhdf5 hangs; with `locking`
    BlockingIOError for one that is being written to. Complete files never are, and locks fail on some network drives.
    """
    try:
        found = _in_a_fork(path, lambda: _describe(path, names, locking))
        with open(path, "rb", buffering=0) as file:
            rows = {name: _rows(file, **about) for name, about in found["rows"].items()}
        return rows, found["there"], found["num_classes"]
    except (ValueError, OverflowError) as error:
        raise Hdf5Error(f"{path} cannot be read as HDF5 ({error}); fetch or build it again") from error


def _describe(path: Path, names: Sequence[str], locking: bool) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r", locking="best-effort" if locking else False) as file:
        if file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("it begins with a user block or has addresses that are not of 8 bytes; h5repack rewrites it")
        rows = {}
        for name in names:
            link = file.get(name, getlink=True)
            if link is not None and not isinstance(link, h5py.HardLink):
                raise ValueError(f"{name} is a link to {link.path}; only data of the file itself are read")
            if isinstance(file.get(name), h5py.Dataset):
                rows[name] = _describe_rows(file[name])
        num_classes = file.attrs.get("num_classes")
        there = [str(name) for name in islice(file, 8)]
        return {"rows": rows, "there": there, "num_classes": None if num_classes is None else int(num_classes)}


def _describe_rows(data: Any) -> dict[str, Any]:
    """What `Rows` needs to know of an h5py.Dataset, but its rows of bytes as elements of one byte."""
    import h5py

    name, dtype, stored = data.name, data.dtype, data.id.get_create_plist()
    if stored.get_layout() == h5py.h5d.VIRTUAL or stored.get_external_count():
        raise ValueError(f"{name} has its data in other files; only data of the file itself are read")
    filters = [stored.get_filter(position)[0] for position in range(stored.get_nfilters())]
    if not {_DEFLATE, _SHUFFLE}.issuperset(filters):
        raise ValueError(f"{name} is compressed by another method than gzip; h5repack -f NONE rewrites it")
    if stored.get_layout() == h5py.h5d.COMPACT or data.ndim not in (1, 2):
        raise ValueError(f"{name} is compact or not a list of rows; h5repack -l CONTI rewrites it")
    kind = str(dtype)
    if h5py.check_vlen_dtype(dtype) == np.uint8:
        kind = "uint8s"
    elif string := h5py.check_string_dtype(dtype):
        kind = "bytes" if string.length else "text"
    size = _REFERENCE.size if kind in _VARIABLE else data.id.get_type().get_size()
    shape, chunk = ([*sizes, 1][:2] for sizes in (data.shape, data.chunks or data.shape))
    grid = [-(-total // part) if part else 0 for total, part in zip(shape, chunk, strict=True)]
    if data.chunks is None:
        chunks = [] if data.size == 0 else [(data.id.get_offset() or 0, 0, 0)]
    elif data.id.get_num_chunks() != grid[0] * grid[1]:
        raise ValueError(f"{name} has rows that were never written")
    else:
        chunks = [(0, 0, 0)] * (grid[0] * grid[1])

        def note(info: Any) -> None:
            row, column = (place // part for place, part in zip([*info.chunk_offset, 0], chunk, strict=False))
            chunks[row * grid[1] + column] = (info.byte_offset, info.size, info.filter_mask)

        data.id.chunk_iter(note)
    return {
        "shape": data.shape, "kind": kind, "size": size, "width": shape[1], "chunk": chunk, "grid": grid,
        "chunks": chunks, "filters": filters,
    }  # fmt: skip


def _rows(
    file: FileIO, shape: list[int], kind: str, size: int, width: int, chunk: list[int], grid: list[int],
    chunks: list[list[int]], filters: list[int],
) -> Rows:  # fmt: skip
    begins = np.array([begin for begin, _, _ in chunks], np.int64)
    row_bytes, chunk_bytes = size * width, size * chunk[1]
    if row_bytes > MAX_BYTES:
        raise ValueError(f"its rows have {row_bytes} bytes")
    unpacked = None
    if filters:
        if len(chunks) * chunk[0] * chunk_bytes > MAX_UNPACKED_BYTES:
            raise ValueError(f"it has more than {MAX_UNPACKED_BYTES} bytes unpacked; h5repack -f NONE rewrites it")
        unpacked = b"".join(_unpacked(file, *place, filters, size, chunk[0] * chunk_bytes) for place in chunks)
        begins = np.arange(len(chunks)) * (chunk[0] * chunk_bytes)
    elif len(begins) and not (0 < begins.min() and int(begins.max()) + chunk[0] * chunk_bytes <= os.fstat(file.fileno()).st_size):
        raise ValueError("it is cut, or rows were never written")
    begins = begins.reshape(grid if len(begins) else (0, 1))
    return Rows(tuple(shape), kind, row_bytes, chunk[0], chunk_bytes, begins, _version(file), unpacked)


def _version(file: FileIO) -> tuple[int, ...]:
    """What tells a file from one that took its place, and from what it was before it was written to."""
    stat = os.fstat(file.fileno())
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _unpacked(file: FileIO, begin: int, size: int, skipped: int, filters: list[int], element: int, expected: int) -> bytes:
    """A compressed chunk of `expected` bytes. `skipped` has a bit for each filter that was not applied, being of no use."""
    content = _read(file, begin, size)
    for position, number in reversed(list(enumerate(filters))):
        if skipped >> position & 1:
            continue
        if number == _DEFLATE:
            try:
                content = zlib.decompressobj().decompress(content, expected + 1)
            except zlib.error as error:
                raise ValueError(f"a chunk is damaged: {error}") from error
        if len(content) != expected:
            raise ValueError(f"a chunk has {len(content)} bytes instead of {expected}")
        if number == _SHUFFLE:  # the first byte of all elements, then the second
            content = np.frombuffer(content, np.uint8).reshape(element, -1).T.tobytes()
    if len(content) != expected:
        raise ValueError(f"a chunk has {len(content)} bytes instead of {expected}")
    return content


def _in_a_fork(path: Path, work: Callable[[], Any]) -> Any:
    """Return what `work` returns of a file, plain data, from a fork of this process.

    ValueError where it fails or crashes, TimeoutError where it hangs, ChildProcessError where it is ended from outside.
    """
    if not hasattr(os, "fork"):  # Windows, where a damaged file can end the program
        return work()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: the child runs none of what they run
        child = os.fork()
    if child == 0:
        try:
            _answer(work, writing)
        finally:
            os._exit(0)
    os.close(writing)
    status = None
    try:
        with open(reading, "rb") as file:
            content = file.read()
        _, status = os.waitpid(child, 0)
    finally:
        if status is None:  # interrupted
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            raise TimeoutError(f"{path} cannot be opened within {TIME_LIMIT_S} s; is it damaged?")
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            raise ChildProcessError(f"the process that opened {path} was ended ({signal.strsignal(number)}); is memory full?")
        raise ValueError(f"libhdf5 crashed: {signal.strsignal(number)}")
    answer = json.loads(content)
    if "error" in answer:
        raise BlockingIOError(answer["error"]) if answer["is_locked"] else ValueError(answer["error"])
    return answer


def _answer(work: Callable[[], Any], writing: int) -> None:
    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # which ends C code too
    signal.alarm(TIME_LIMIT_S)
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the C library writes about damaged memory
    try:
        answer = work()
    except Exception as error:  # of h5py, which raises all kinds for damaged files
        answer = {"error": " ".join(str(error).split()), "is_locked": isinstance(error, BlockingIOError)}
    with open(writing, "wb") as file:
        file.write(json.dumps(answer).encode())


def _heap_object(file: FileIO, length: int, begin: int, number: int) -> bytes:
    """Read a variable-length row of `length` bytes: object `number` of the heap that begins at byte `begin`."""
    if length == 0:
        return b""
    ahead = _read(file, begin, _HEAP.size + _OBJECT.size + length, short=True)  # mostly it is the first object
    if len(ahead) < _HEAP.size or ahead[:4] != b"GCOL":
        raise ValueError(f"there is no heap at byte {begin}")
    end = begin + _HEAP.unpack_from(ahead)[2]
    at = _HEAP.size
    for _ in range(_MAX_OBJECTS):
        header = ahead[at : at + _OBJECT.size]
        if len(header) < _OBJECT.size:
            header = _read(file, begin + at, _OBJECT.size)
        found, _, size = _OBJECT.unpack(header)
        at += _OBJECT.size
        if found == 0 or begin + at + size > end:  # the rest of the heap is free
            break
        if found == number:
            if size < length:
                raise ValueError(f"{length} bytes are announced, and {size} stored")
            content = ahead[at : at + length]
            return content if len(content) == length else _read(file, begin + at, length)
        at += -(-size // 8) * 8
    raise ValueError(f"the heap at byte {begin} is damaged")


def _read(file: FileIO | BytesIO, begin: int, size: int, *, short: bool = False) -> bytes:
    """Read `size` bytes; with `short` fewer where the file ends before."""
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes are announced")
    with suppress(OverflowError):  # a position of more than 63 bits
        file.seek(begin)
        content = file.read(size)
        while len(content) < size and (more := file.read(size - len(content))):  # a read may return less than there is
            content += more
        if short or len(content) == size:
            return content
    raise ValueError(f"the file ends before byte {begin + size}")
