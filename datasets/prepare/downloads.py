"""Downloads as they come: a folder, a zip, or a folder of zips. Files are found by name and read one by one; nothing is extracted.

So an archive's entry names do no harm: only the entries asked for are read, and the caller decides where they go.
"""

import glob
import os
import threading
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from datasets.prepare.archives import ArchiveError, read_zipped
from models.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A file in a zip archive."""

    archive: Path
    name: str

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"


class Download:
    """All files of a download, by their name or by the end of their path."""

    def __init__(self, source: str | Path) -> None:
        """`source` is a zip, or a folder that holds files, zips or both, also in subfolders; of both, the extracted file is taken.

        Raises FileNotFoundError, and UserError for a zip that cannot be read.
        """
        source = Path(source).expanduser()
        if not source.exists():
            raise FileNotFoundError(f"{source} not found; give the downloaded zip, or the folder of the download")
        self.source = source
        self._files: dict[str, Path | Entry] = {}  # by the last one and by the last two components
        self._split: Path | None = None  # an archive of several parts
        archives = [source] if source.is_file() else []
        for folder, subfolders, names in os.walk(source):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                path = Path(folder, name)
                if path.suffix.lower() == ".zip":
                    archives.append(path)
                else:
                    self._add(path.parts, path)
        for archive in archives:
            if any(archive.parent.glob(f"{glob.escape(archive.stem)}.z[0-9][0-9]")):
                self._split = archive
                continue
            for name in _names(archive):
                self._add(PurePosixPath(name).parts, Entry(archive, name))

    def find(self, name: str) -> Path | Entry | None:
        """The file whose path ends in `name`, one or two components; of several any one, but always the same.

        Raises UserError where it is not there, but may be in a split archive.
        """
        file = self._files.get(name)
        if file is None and self._split:
            joined = self._split.with_name(f"joined_{self._split.name}")
            raise UserError(
                f"{name} is not there, and {self._split} is in several parts (.z01, ...), which Python does not read: extract "
                f"it with `7z x {self._split}`, or join it with `zip -s 0 {self._split} --out {joined}` and remove the parts"
            )
        return file

    def read_required(self, name: str) -> bytes:
        """Content of a file that must be there. Raises FileNotFoundError and UserError."""
        file = self.find(name)
        if file is None:
            raise FileNotFoundError(f"{self.source} holds no {name}; is the download complete?")
        return read(file)

    def _add(self, parts: tuple[str, ...], file: Path | Entry) -> None:
        if parts and not parts[-1].startswith(".") and "__MACOSX" not in parts:
            for count in (1, 2):
                self._files.setdefault("/".join(parts[-count:]), file)


def read(file: str | Path | Entry) -> bytes:
    """Content of a file, in an archive or not. Raises OSError, and UserError for a damaged, encrypted or too large entry."""
    if not isinstance(file, Entry):
        return Path(file).read_bytes()
    try:
        return read_zipped(_open(file.archive, os.getpid(), threading.get_ident()), file.name)
    except ArchiveError as error:
        raise UserError(f"{file.archive} is damaged: {error}; fetch it again") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({error}); fetch the archive again") from error


@lru_cache(maxsize=64)
def _open(archive: Path, process: int, thread: int) -> zipfile.ZipFile:
    """An archive opened for one thread alone."""
    return zipfile.ZipFile(archive)


def _names(archive: Path) -> list[str]:
    """Files of a zip archive. Raises UserError."""
    try:
        with zipfile.ZipFile(archive) as file:
            return [entry.filename for entry in file.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{archive} cannot be read as a zip ({error}); fetch it again") from error
