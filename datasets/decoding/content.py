"""The content of a recording as a file that can be read at any position: of paths, bytes, file objects and pipes alike."""

import io
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datasets.decoding.errors import AudioError
from models.errors import UserError

_PIECE = 1 << 20  # bytes copied at a time

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


@dataclass(frozen=True)
class Content:
    """An open regular file. Its position belongs to libsndfile; all others read by offset."""

    descriptor: int
    size: int  # bytes

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)

    def rewind(self) -> None:
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    def position(self) -> int:
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)

    def view(self, start: int = 0, end: int | None = None) -> "View":
        return View(self, start, self.size if end is None else end)


class View(io.RawIOBase):
    """A part of a content as a file object, with some bytes replaced: `replaced[offset]` are what is read from there on."""

    def __init__(self, content: Content, start: int, end: int, replaced: dict[int, bytes] | None = None) -> None:
        super().__init__()
        self._content, self._start, self._end, self._replaced = content, start, end, replaced or {}
        self.position = start  # in the content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: self._start, io.SEEK_CUR: self.position, io.SEEK_END: self._end}[whence]
        self.position = max(self._start, origin + offset)
        return self.tell()

    def readinto(self, buffer: memoryview) -> int:
        first = self.position
        data = self._content.read(first, max(0, min(len(buffer), self._end - first)))
        buffer[: len(data)] = data
        for offset, new in self._replaced.items():
            for index, byte in enumerate(new, offset - first):
                if 0 <= index < len(data):
                    buffer[index : index + 1] = bytes([byte])
        self.position += len(data)
        return len(data)


def source_name(source: Source) -> str:
    """What errors call a recording that was given no name."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"recording of {len(source)} bytes"
    if hasattr(source, "read"):
        return str(getattr(source, "name", "") or "recording of a file object")
    return str(source)


@contextmanager
def opened(source: Source, name: str) -> Iterator[Content]:
    """Yield the content of a recording.

    A path is opened. Bytes, and what file objects and pipes give until they end, go to an unlinked file: pipes to the
    temporary folder, bytes to memory. Raises FileNotFoundError, and AudioError for a folder, a device and 0 bytes.
    """
    with _file_of(source, name) as file:
        if (size := os.fstat(file.fileno()).st_size) == 0:
            raise AudioError(f"{name} is empty (0 bytes); fetch or convert it again")
        yield Content(file.fileno(), size)


def _file_of(source: Source, name: str) -> BinaryIO:
    if isinstance(source, (bytes, bytearray, memoryview)):
        in_memory = hasattr(os, "memfd_create")
        file = open(os.memfd_create("recording"), "w+b", buffering=0) if in_memory else tempfile.TemporaryFile(buffering=0)
        return _filled(file, [source], name)
    if hasattr(source, "read"):
        return _filled(tempfile.TemporaryFile(buffering=0), iter(lambda: source.read(_PIECE), b""), name)
    path = Path(source)
    if "\0" in str(source) or not path.exists():
        raise FileNotFoundError(f"{name} not found; give the path of an audio file")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(f"{name} is a folder; give the path of one audio file")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise AudioError(f"{name} is a device or a socket; allowed: a file or a pipe")
    try:
        file = open(path, "rb", buffering=0)
    except OSError as error:
        raise AudioError(f"{name} cannot be opened ({error.strerror or error})") from error
    if stat.S_ISREG(mode):
        return file
    with file:
        return _filled(tempfile.TemporaryFile(buffering=0), iter(lambda: file.read(_PIECE), b""), name)


def _filled(file: BinaryIO, pieces: Iterable[bytes], name: str) -> BinaryIO:
    """Write pieces of a recording into a new file, and rewind it."""
    try:
        for piece in pieces:
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise UserError(f"{name} is opened as text; open it in binary mode")
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
        file.seek(0)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise AudioError(f"{name} cannot be read ({error.strerror or error})") from error
        raise
    return file
