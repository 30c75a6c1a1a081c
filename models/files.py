"""Files that are complete under their name or not there at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name next to `path`; a file written there is renamed to `path` at the end, and removed after an error.

    The folder is made, and the file flushed to the disk before it is renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # a failure here must not hide the first one
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that appears under its name when it is complete, see `replacing`."""
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            write(file)
    except RuntimeError as error:  # what torch.save makes of a full disk
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, os.fspath(path)) from error
        raise
