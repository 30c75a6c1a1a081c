"""Files in archives, read into memory: refused where they are larger than they may be, as declared and as counted."""

import tarfile
import zipfile
from typing import Any

from models.errors import UserError

MAX_BYTES = 1 << 28  # of one file: 25 minutes of stereo at 44.1 kHz
MAX_HEADER_BYTES = 1 << 20  # of a long name in a tar, which tarfile reads into memory


class ArchiveError(UserError):
    """A file in an archive is too large."""


def read_zipped(archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Content of a file in a zip archive. Raises ArchiveError, and what `zipfile` raises for damage."""
    _check_size(name, archive.getinfo(name).file_size, max_bytes)
    with archive.open(name) as file:
        content = file.read(max_bytes + 1)  # a zip may hold more than it declares
    _check_size(name, len(content), max_bytes)
    return content


def read_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int = MAX_BYTES) -> bytes:
    """Content of a regular file in a tar. Raises ArchiveError, and what `tarfile` raises for damage."""
    _check_size(member.name, member.size, max_bytes)  # it holds what it declares
    return archive.extractfile(member).read()


class ShortHeader(tarfile.TarInfo):
    """A member of a tar whose header is no larger than a long name: `tarfile.open(..., tarinfo=ShortHeader)`."""

    @classmethod
    def frombuf(cls, *args: Any) -> tarfile.TarInfo:
        header = super().frombuf(*args)
        if not header.isfile() and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _check_size(name: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ArchiveError(f"{name} has more than {max_bytes} bytes unpacked; it is not what it should be")
