"""Files on this machine and in object stores, by their address: a path, or what fsspec knows, such as s3://bucket/folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from models.errors import UserError, install_command
from models.files import replacing, write_bytes

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# What object stores and servers call the version of an object, the first that is there.
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified", "last_modified", "mtime", "created")


class Status(NamedTuple):
    """What is known of a file without reading it."""

    size: int  # bytes; 0 where it is not known
    stamp: str  # changes with the content: the time in ns, or the store's ETag; empty where it is not known


def is_remote(address: str) -> bool:
    return "://" in address and not address.startswith("file://")


def local_path(address: str) -> Path:
    """Return the absolute path of an address of this machine, without following links."""
    return Path(os.path.abspath(address.removeprefix("file://")))


def file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """Return fsspec's file system of an address and the path there. `UserError` for an unknown protocol or a missing package."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise UserError(f"{address} needs fsspec, which is not installed: {install_command('archive')}") from error
    try:
        return url_to_fs(address, use_listings_cache=False)  # others write there too
    except ImportError as error:
        raise UserError(f"{address} needs a package that is not installed: {error}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{address} is no address that fsspec knows ({error}); give a path or one as s3://bucket/folder") from error


@contextlib.contextmanager
def errors_name(address: str, keep: type[ValueError] = UserError) -> Iterator[None]:
    """Make whatever a library of a store raises an OSError of one line that names the address. `keep` stays."""
    try:
        yield
    except (keep, MemoryError):  # not of the store
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{address} is not there") from error
    except Exception as error:  # of botocore, aiohttp, gcsfs, ...: no two have a class in common
        reason = f"{type(error).__name__}: {error}"
        raise OSError(f"{address} cannot be reached ({reason}); look at the address and the access") from error


def status(address: str) -> Status:
    """Return size and stamp of a file. Raises OSError: FileNotFoundError where nothing is there."""
    if is_remote(address):
        fs, path = file_system(address)
        with errors_name(address):
            return remote_status(fs.info(path))
    found = os.stat(local_path(address))
    return Status(found.st_size, str(found.st_mtime_ns))


def remote_status(info: dict[str, Any]) -> Status:
    """Return size and stamp of what fsspec says of a file."""
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), "")
    return Status(info.get("size") or 0, stamp.strip('"'))


@contextlib.contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """Open a file to be read at any position. Raises OSError."""
    if is_remote(address):
        fs, path = file_system(address)
        with errors_name(address, keep=ValueError), fs.open(path, "rb") as file:  # those of who reads the file
            yield file
    else:
        with open(local_path(address), "rb") as file:
            yield file


def read(address: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the content of a file, or a part of it. Raises OSError."""
    if is_remote(address):
        fs, path = file_system(address)
        with errors_name(address):
            content = fs.cat_file(path, start=start, end=end)
        if end is not None and len(content) > end - (start or 0):
            raise OSError(f"{address} cannot be read in parts, as its server does not do that; fetch it first")
        return content
    with open(local_path(address), "rb") as file:
        file.seek(start or 0)
        return file.read(-1 if end is None else end - (start or 0))


class Folder:
    """A folder by its address; names in it are relative, with slashes. A file is complete under its name, or not there."""

    def __init__(self, address: str | os.PathLike[str]) -> None:
        """`UserError` for an unknown protocol, a missing package or no address at all."""
        if not os.fspath(address):
            raise UserError("an empty name is no folder; give a path, or an address as s3://bucket/folder")
        self.address = os.fspath(address).rstrip("/") or "/"
        self.is_remote = is_remote(self.address)
        if self.is_remote:
            file_system(self.address)  # raises
        else:
            self.address = os.fspath(local_path(self.address))

    def path(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.address}/{name}"

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none where it is not there."""
        if self.is_remote:
            fs, path = file_system(self.path(folder))
            with errors_name(self.address):
                try:
                    found = [os.path.basename(entry["name"]) for entry in fs.ls(path, detail=True) if entry["type"] == "file"]
                except FileNotFoundError:
                    found = []
        else:
            path = Path(self.path(folder))
            found = [entry.name for entry in os.scandir(path) if entry.is_file()] if path.is_dir() else []
        return sorted(name for name in found if name and not name.startswith("."))

    def exists(self, name: str) -> bool:
        if not self.is_remote:
            return Path(self.path(name)).is_file()
        fs, path = file_system(self.path(name))
        with errors_name(self.address):
            return fs.isfile(path)

    def read(self, name: str) -> bytes:
        return read(self.path(name))

    def write(self, name: str, content: bytes) -> None:
        if not self.is_remote:
            write_bytes(self.path(name), content)
            return
        fs, path = file_system(self.path(name))
        with errors_name(self.path(name)):
            fs.pipe_file(path, content)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a path of this machine; what is written there gets the name at the end, and is removed after an error."""
        if not self.is_remote:
            with replacing(Path(self.path(name))) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            yield (path := Path(folder, "content"))
            fs, target = file_system(self.path(name))
            with errors_name(self.path(name)):
                fs.put_file(os.fspath(path), target)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; one that is not there does no harm."""
        if self.is_remote:
            fs, path = file_system(self.path(name))
            with errors_name(self.path(name)), contextlib.suppress(FileNotFoundError):
                fs.rm(path, recursive=True)
            return
        path = Path(self.path(name))
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
