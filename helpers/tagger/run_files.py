"""Files of long runs: rows are in them as they come, and a run that was interrupted resumes behind the last recording.

While a run lasts, and after it was interrupted, NAME.progress lies next to its file NAME. It holds lines of JSON: the options of
the run, then for each recording that is done how many bytes NAME has, how many rows it gave, whether it failed, how many warnings
it gave, and its name. What is in NAME behind the last of them is of a recording that was not done; a resumed run removes it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from models.command import printable
from models.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where two runs can write to one file
    fcntl = None

PROGRESS = ".progress"


class Done(NamedTuple):
    """A recording of which all rows are written."""

    size: int  # bytes of the file behind its rows
    rows: int
    failed: bool
    warnings: int
    source: str


class RunFile:
    """A file that grows recording by recording, as a context: without an error it is complete in the end.

    Nothing is written before the first row or recording: an existing file that is complete stays until then. A `UserError` in the
    first recording leaves nothing.
    """

    def __init__(self, path: Path, options: dict[str, Any], *, resume: bool, option: str = "--resume") -> None:
        """`options` are those that rows depend on, as JSON holds them.

        `resume` continues what an interrupted run left, if there is such a thing; a user asks for it by `option`. Raises
        `UserError` for an interrupted run without `resume`, and for one with other options.
        """
        self.path = path
        self._progress_path = path.with_name(path.name + PROGRESS)
        self._option = option
        self._options = json.loads(json.dumps(options))
        self.done: set[str] = set()  # sources of an interrupted run
        self.recordings = self.rows = self.failed = self.with_warnings = 0  # counts, those of the interrupted run included
        self.size = 0  # bytes written
        self._data: FileIO | None = None  # open from the first row on, as is the file of the progress
        self._progress: FileIO | None = None
        self._whole = self._progress_size = 0  # bytes in the two files that a resumed run keeps
        if self._progress_path.exists():
            if not resume:
                raise UserError(
                    f"{path} is not finished; resume with {option} and the same options, or remove {self._progress_path}"
                )
            self._take_up()
        self.is_complete = resume and self._progress is None and path.exists()

    def summary(self) -> str:
        """Return how many recordings are done, and how."""
        warned = f", {self.with_warnings} with warnings" if self.with_warnings else ""
        return f"{self.recordings - self.failed} of {self.recordings} recordings{warned}"

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._begin()
                os.fsync(self._data.fileno())
                self._progress_path.unlink()
            elif self._data is not None and not self.recordings and issubclass(kind, UserError):
                self._progress_path.unlink()  # of the only recording, part of which was written
                self.path.unlink()
            elif self._data is not None and issubclass(kind, KeyboardInterrupt):
                print(f"{printable(self.path)}: {self.summary()} done; {self._option} continues", file=sys.stderr)
        finally:
            self._close()

    def write(self, content: bytes) -> None:
        """Append rows of the recording at hand; of these, a full disk leaves nothing."""
        self._begin()
        try:
            _write(self._data, content, self.path)
        except OSError:
            self._data.truncate(self.size)
            raise
        self.size += len(content)

    def finish_recording(self, source: str, *, rows: int, failed: bool, warnings: int) -> None:
        """Note that all rows of a recording are written."""
        self._begin()
        done = Done(self.size, rows, failed, warnings, source)
        _write(self._progress, json.dumps(done).encode() + b"\n", self._progress_path)
        self._count(done)

    def finished(self) -> Iterator[Done]:
        """Yield the recordings that are done, in the order of their rows."""
        if not self.recordings:
            return
        with open(self._progress_path, "rb") as file:
            next(file)  # the options
            for line in file:
                yield Done(*json.loads(line))

    def _take_up(self) -> None:
        """Read how far an interrupted run got, and keep other runs off its files."""
        try:
            self._progress = _open_alone(self._progress_path, self.path, os.O_RDWR)
        except FileNotFoundError:  # that run has ended just now
            return
        try:
            with open(self._progress_path, "rb") as lines:  # of a file without a buffer they are slow
                self._count_lines(lines)
        except BaseException:
            self._close()
            raise
        self.size = self._whole

    def _count_lines(self, lines: Iterable[bytes]) -> None:
        present = self.path.stat().st_size if self.path.exists() else 0
        for number, line in enumerate(lines):
            if not line.endswith(b"\n"):
                break
            if number == 0:
                self._refuse_others(self._parse(line))
            else:
                try:
                    done = Done(*json.loads(line))
                except (ValueError, TypeError):  # a power failure leaves such lines
                    break
                if done.size > present:  # and such a file
                    break
                self._count(done)
                self.done.add(done.source)
                self._whole = done.size
            self._progress_size += len(line)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise UserError(f"{self._progress_path} is damaged; remove it to start {self.path} over") from error

    def _refuse_others(self, options: dict[str, Any]) -> None:
        for name in sorted(options.keys() | self._options.keys()):
            before, now = options.get(name), self._options.get(name)
            if before != now:
                raise UserError(
                    f"{self.path} was begun with {name} {before}, not {now}; resume it with the same options, or remove "
                    f"{self._progress_path} to start over"
                )

    def _count(self, done: Done) -> None:
        self.recordings += 1
        self.rows += done.rows
        self.failed += done.failed
        self.with_warnings += done.warnings > 0

    def _begin(self) -> None:
        """Cut off what is no whole recording, or begin two new files."""
        if self._data is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._progress is None:
            self._progress = _open_alone(self._progress_path, self.path, os.O_RDWR | os.O_CREAT)
            if os.fstat(self._progress.fileno()).st_size > 0:
                raise UserError(f"another process has begun {self.path}; write to another file")
        _cut(self._progress, self._progress_size)
        if self._progress_size == 0:
            _write(self._progress, json.dumps(self._options).encode() + b"\n", self._progress_path)
        try:
            self._data = _open(self.path, os.O_RDWR | os.O_CREAT)
        except OSError:
            if not self.recordings:
                self._progress_path.unlink()
            raise
        _cut(self._data, self._whole)

    def _close(self) -> None:
        for file in (self._data, self._progress):
            if file is not None:
                file.close()


def _open(path: Path, flags: int) -> FileIO:
    return open(os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0)


def _open_alone(path: Path, data: Path, flags: int) -> FileIO:
    """Open the progress of a file that no other process writes, and lock it, which ends when it is closed.

    Raises `UserError` where another process does, FileNotFoundError where one has just finished it.
    """
    file = _open(path, flags)
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"another process is writing {data}; wait for it, or write to another file") from error
    except OSError:  # a file system without locks
        pass
    if os.fstat(file.fileno()).st_nlink == 0:
        file.close()
        raise FileNotFoundError(errno.ENOENT, "finished by another process just now", os.fspath(data))
    return file


def _cut(file: FileIO, size: int) -> None:
    """Keep the first `size` bytes and continue behind them."""
    file.truncate(size)
    file.seek(size)


def _write(file: FileIO, content: bytes, path: Path) -> None:
    """Write all of it: nothing is left in a buffer when the process is killed. Errors name the path."""
    view = memoryview(content)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
