"""Files and folders that are complete under their name or not there at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name next to `path`; a file written there is renamed to `path` at the end, and removed after an error.

    The folder is made, and the file flushed to the disk before it is renamed. An OSError that names no file, as of a full
    disk, gets `path`. Any number of processes may write to the same path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield temporary
        publish(temporary, path)
    except OSError as error:
        _complete(error, path, temporary)
        raise
    except RuntimeError as error:  # what torch.save and h5py make of a full disk
        if isinstance(cause := error.__context__, OSError):
            raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error
        if "errno" in str(error):
            raise OSError(f"{path} cannot be written: {error}") from error
        raise
    finally:
        with contextlib.suppress(OSError):  # a failure here must not hide the first one
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path, older_than: float = 0.0) -> None:
    """Remove the temporary files that killed processes left of `path`: those not written to for `older_than` seconds."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{8 * '[0-9a-f]'}.part"):
        with contextlib.suppress(OSError):  # another process may be faster
            if older_than == 0 or time.time() - leftover.stat().st_mtime > older_than:
                leftover.unlink()


def publish(temporary: Path, path: Path) -> None:
    """Flush a complete file to the disk and give it the name `path`."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that appears under its name when it is complete, see `replacing`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(file)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file that appears under its name when it is complete, see `replacing`."""
    write_atomically(Path(path), lambda file: file.write(content))


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder next to `path`, which gets the name `path` at the end and is removed after an error.

    `path` must not exist, or be an empty folder. Only one process at a time may write to a path: it removes what a killed one left.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()  # fails where it holds anything
        os.replace(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            _complete(error, path, temporary)
        raise


def _complete(error: OSError, path: Path, temporary: Path) -> None:
    """Make an error that names no file, or the temporary one, name `path`."""
    if error.errno is not None and error.filename in (None, os.fspath(temporary)):
        error.filename = os.fspath(path)
