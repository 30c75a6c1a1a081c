"""Decoding in processes of their own: a recording that crashes or hangs a decoder costs that recording, not the program.

A process reads one recording after the other. It sends blocks at the wanted rate through a pipe, so it is ahead by what the pipe
holds, not more. What libraries print while they decode becomes a warning of the recording. Needs POSIX.
"""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets.audio import AudioError
from datasets.decoding.errors import CrashError, HangError
from datasets.sound import open_sound, resampled
from models.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

IS_AVAILABLE = fcntl is not None
TIME_LIMIT = 60.0  # seconds
START_LIMIT = 60.0  # seconds in which a process must have started
PIPE_BYTES = 1 << 20  # what a pipe should hold, where that can be chosen: two blocks
SMALL_BYTES = 1 << 12  # messages below are collected; blocks are not copied
PRINTED_BYTES = 1 << 16  # that are read of what a process printed

_HEADER = struct.Struct("<cQ")  # the kind of a message, and how many bytes follow
_BEGIN, _BLOCK, _END, _ERROR = b"S", b"B", b"E", b"X"  # blocks are float32, the others JSON
_READY = b"R"  # what a process sends first
_ERRORS = {error.__name__: error for error in (AudioError, UserError, FileNotFoundError)}  # others arrive as an OSError
_PROGRAM = f"import sys; limit = float(sys.argv[1]); sys.path[:] = sys.argv[2:]; from {__name__} import serve; serve(limit)"


class IsolatedSound:
    """A recording that a process decodes, read block by block, once."""

    def __init__(self, process: _Process, pool: Decoders, name: str, rate: int, channels: int) -> None:
        self.name = name
        self.rate = rate  # Hz, of the recording; the blocks have the one that was asked for
        self.channels = channels
        self.samples = 0  # at the recording's rate; known when the blocks are exhausted
        self.warnings: list[str] = []  # complete then
        self.blocks: Iterator[np.ndarray] = self._read(process, pool)  # (samples,) float32

    def _read(self, process: _Process, pool: Decoders) -> Iterator[np.ndarray]:
        try:
            while True:
                kind, content = process.receive()
                if kind == _END:
                    break
                yield np.frombuffer(content, np.float32)
            end = json.loads(content)
            self.samples = end["samples"]
            self.warnings += end["warnings"] + process.printed()
        finally:
            pool.give_back(process)


class Decoders:
    """Processes that decode, started when they are needed; a context."""

    def __init__(self, time_limit: float = TIME_LIMIT, *, keep: int = 1) -> None:
        """A process may send nothing for `time_limit` seconds. Up to `keep` of them wait for further recordings."""
        self._time_limit, self._keep = time_limit, keep
        self._lock = threading.Lock()
        self._idle: list[_Process] = []

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes that wait, and each of the others when its recording is read."""
        with self._lock:
            self._keep, idle, self._idle = 0, self._idle, []
        for process in idle:
            process.stop()

    def open(self, source: str | os.PathLike[str] | bytes, rate: int, *, name: str | None = None, **reading: Any) -> IsolatedSound:
        """Open a recording, whose blocks come at `rate` Hz; `name` and `reading` are keywords of `datasets.sound.open_sound`.

        Raises what that raises, and `AudioError` if the process ends or sends nothing in time; so do the blocks.
        """
        if isinstance(source, os.PathLike):
            source = Path(source)
        name = name or (f"recording of {len(source)} bytes" if isinstance(source, bytes) else str(source))
        process = self._take()
        try:
            process.send(name, {"source": source, "rate": rate, "name": name, **reading})
            _, content = process.receive()
        except BaseException:
            self.give_back(process)
            raise
        return IsolatedSound(process, self, **json.loads(content))

    def give_back(self, process: _Process) -> None:
        """Let a process wait for the next recording, or end it: it may be stuck, or in the middle of a recording."""
        with self._lock:
            if keep := process.is_idle and len(self._idle) < self._keep:
                self._idle.append(process)
        if not keep:
            process.stop()

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive():
                    return process
        return _Process(self._time_limit)


class _Process:
    """One process, seen from the program."""

    def __init__(self, time_limit: float) -> None:
        self.is_idle = True
        self._time_limit = time_limit
        self._is_ready = False
        self._name = ""  # of the recording that it decodes
        self._printed = tempfile.TemporaryFile(buffering=0)
        fcntl.fcntl(self._printed, fcntl.F_SETFL, fcntl.fcntl(self._printed, fcntl.F_GETFL) | os.O_APPEND)  # as it is emptied
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(time_limit), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the program alone
        )
        self._answers = self._process.stdout.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._buffer = memoryview(bytearray(SMALL_BYTES))
        self._ahead = self._buffer[:0]  # what is in the buffer of the next messages
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._selector, self._process.stdin, self._process.stdout, self._printed):
            file.close()

    def send(self, name: str, request: dict[str, Any]) -> None:
        self._name, self.is_idle = name, False
        if not self._is_ready:
            self._read(len(_READY), START_LIMIT)
            self._is_ready = True
        rest = memoryview(pickle.dumps(request))
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except BrokenPipeError as error:
            raise CrashError(self._how_it_ended()) from error

    def receive(self) -> tuple[bytes, bytearray]:
        """Return the kind and the content of the next message; raise what it holds if that is an error."""
        kind, size = _HEADER.unpack(self._read(_HEADER.size, self._time_limit))
        content = self._read(size, self._time_limit)
        self.is_idle = kind in (_END, _ERROR)
        if kind == _ERROR:
            self.printed()
            error = json.loads(content)
            raise _ERRORS.get(error["type"], OSError)(error["message"])
        return kind, content

    def printed(self) -> list[str]:
        """Return what libraries printed about the recording, in one line if there is anything."""
        printed = os.pread(self._printed.fileno(), PRINTED_BYTES, 0)
        self._printed.truncate(0)
        return in_one_line(self._name, printed)

    def _read(self, size: int, limit: float) -> bytearray:
        content = bytearray(size)
        count = min(size, len(self._ahead))
        content[:count], self._ahead = self._ahead[:count], self._ahead[count:]
        while count < size:
            if not self._selector.select(limit):
                raise HangError(f"{self._name} takes more than {limit:g} s to decode; leave it out or raise the limit")
            received = os.readv(self._answers, [memoryview(content)[count:], self._buffer])
            if received == 0:
                raise CrashError(self._how_it_ended())
            self._ahead = self._buffer[: max(0, count + received - size)]
            count += received
        return content

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        lines = self.printed()
        return f"{self._name} crashed the decoder ({how}); convert it again or leave it out" + "".join(
            f": {line}" for line in lines
        )


def in_one_line(name: str, printed: bytes) -> list[str]:
    """Return what libraries printed about a recording as one line with its name, none if there is nothing."""
    lines = [line.strip() for line in printed.decode(errors="replace").splitlines() if line.strip()]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return [f"{name}: {lines[0]}{more}"] if lines else []


def serve(time_limit: float) -> None:
    """Decode what is asked for on standard input until that ends; in a process of its own."""
    with os.fdopen(os.dup(1), "wb", SMALL_BYTES) as answers:
        os.dup2(2, 1)  # libraries print there as well
        answers.write(_READY)
        answers.flush()
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            messages = _decode(**request)
            kind = _BEGIN
            while kind not in (_END, _ERROR):
                signal.setitimer(signal.ITIMER_REAL, 2 * time_limit)  # ends a process that hangs where nobody else is left to
                try:
                    kind, content = next(messages)
                except (UserError, OSError) as error:
                    kind, content = _ERROR, _json({"type": type(error).__name__, "message": str(error)})
                except Exception as error:  # a mistake in our code, or in a library, that this recording brings to light
                    what = f"{request['name']} cannot be decoded ({type(error).__name__}: {error}); leave it out"
                    kind, content = _ERROR, _json({"type": AudioError.__name__, "message": what})
                signal.setitimer(signal.ITIMER_REAL, 0)  # waiting until there is room in the pipe is not hanging
                answers.write(_HEADER.pack(kind, len(content)))
                answers.write(content)
            answers.flush()


def _decode(source: str | Path | bytes, rate: int, **reading: Any) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Yield the messages about one recording."""
    sound = open_sound(source, **reading)
    yield _BEGIN, _json({"name": sound.name, "rate": sound.rate, "channels": sound.channels})
    samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal samples
        for block in sound.blocks:
            samples += len(block)
            yield block

    for block in resampled(counted(), sound.rate, rate, sound.name):
        yield _BLOCK, np.ascontiguousarray(block, np.float32).data.cast("B")
    yield _END, _json({"samples": samples, "warnings": sound.warnings})


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
