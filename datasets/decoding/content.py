"""The content of a recording as a file that can be read at any position: of paths, bytes, file objects and pipes alike."""

import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from datasets.decoding.errors import AudioError
from models.errors import UserError

_PIECE = 1 << 20  # bytes copied at a time
_HEAD = 1 << 12  # bytes read at once: headers are read in small pieces

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


class Content:
    """An open regular file. Its position belongs to libsndfile; all others read by offset."""

    def __init__(self, descriptor: int, size: int, head: bytes | None = None) -> None:
        """`size` in bytes; `head` is what the file begins with, as much of it as is at hand."""
        self.descriptor, self.size = descriptor, size
        self._head = _read_at(descriptor, _HEAD, 0) if head is None else head

    def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes, fewer at the end of the file."""
        if offset >= self.size:
            return b""
        if offset + size <= len(self._head):
            return self._head[offset : offset + size]
        return _read_at(self.descriptor, size, offset)

    def rewind(self) -> None:
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    def position(self) -> int:
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)

    def view(self, start: int = 0, end: int | None = None) -> "View":
        return View(self, start, self.size if end is None else end)


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    position = os.lseek(descriptor, 0, os.SEEK_CUR)  # Windows
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, size)
    os.lseek(descriptor, position, os.SEEK_SET)
    return data


class View(io.RawIOBase):
    """A part of a content as a file object, behind a header of its own if there is one."""

    def __init__(self, content: Content, start: int, end: int, header: bytes = b"") -> None:
        super().__init__()
        self._content, self._start, self._end, self._header = content, start, end, header
        self._position = 0

    @property
    def unread(self) -> int:
        """Bytes of the content behind the position."""
        return self._content.size - self._start - max(0, self._position - len(self._header))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._header) + self._end - self._start}[whence]
        self._position = max(0, origin + offset)
        return self.tell()

    def readinto(self, buffer: memoryview) -> int:
        data = self._header[self._position : self._position + len(buffer)]
        if not data:
            first = self._start + self._position - len(self._header)
            data = self._content.read(first, max(0, min(len(buffer), self._end - first)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def source_name(source: Source) -> str:
    """What errors call a recording that was given no name."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"recording of {len(source)} bytes"
    if hasattr(source, "read"):
        return str(getattr(source, "name", "") or "recording of a file object")
    return str(source)


@contextmanager
def opened(source: Source, name: str, check: Callable[[Content], None] | None = None) -> Iterator[Content]:
    """Yield the content of a recording.

    A path is opened. Bytes, and what file objects and pipes give until they end, go to an unlinked file: pipes to the
    temporary folder, bytes to memory. `check` gets the first megabyte of an object or a pipe that has more, and may raise.
    Raises FileNotFoundError, and AudioError for a folder, a device and 0 bytes.
    """
    try:
        descriptor = _descriptor_of(source, name, check)
    except FileNotFoundError as error:
        if error.errno is None:  # it has a message already
            raise
        raise AudioError(f"{name} cannot be copied ({error})") from error
    except OSError as error:
        raise AudioError(f"{name} cannot be read ({error.strerror or error})") from error
    try:
        if (size := os.fstat(descriptor).st_size) == 0:
            raise AudioError(f"{name} is empty (0 bytes); fetch or convert it again")
        yield Content(descriptor, size, source if isinstance(source, bytes) else None)
    finally:
        os.close(descriptor)


def _descriptor_of(source: Source, name: str, check: Callable[[Content], None] | None) -> int:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _filled([source], name, os.memfd_create("recording") if hasattr(os, "memfd_create") else _new_file())
    if hasattr(source, "read"):
        if getattr(source, "closed", False):
            raise UserError(f"{name} is a file object that is closed; open it again")
        return _filled(iter(lambda: source.read(_PIECE), b""), name, _new_file(), check)
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a zero byte
        raise FileNotFoundError(f"{name} not found; give the path of an audio file") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    try:
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name} is a folder; give the path of one audio file")
        if not stat.S_ISFIFO(mode):
            raise AudioError(f"{name} is a device; allowed: a file or a pipe")
        return _filled(iter(lambda: os.read(descriptor, _PIECE), b""), name, _new_file(), check)
    finally:
        os.close(descriptor)


def _new_file() -> int:
    """Open an unlinked file in the temporary folder."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def _filled(pieces: Iterable[bytes], name: str, descriptor: int, check: Callable[[Content], None] | None = None) -> int:
    """Write pieces of a recording into a new file."""
    size = 0
    try:
        for piece in pieces:
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise UserError(f"{name} is opened as text; open it in binary mode")
            if check is not None and size >= _PIECE:
                check(Content(descriptor, size))
                os.lseek(descriptor, size, os.SEEK_SET)
                check = None
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            size += len(piece)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
