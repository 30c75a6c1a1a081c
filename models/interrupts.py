"""Ctrl-C and SIGTERM end a command in order: by an exception, or where a piece of work must be finished, behind it."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came, from a batch system, a container or a user: what KeyboardInterrupt is for Ctrl-C."""


class Interruption:
    """Whether a signal came."""

    number: int | None = None

    def error(self) -> KeyboardInterrupt:
        return KeyboardInterrupt() if self.number == signal.SIGINT else Terminated()


def signal_name(error: KeyboardInterrupt) -> str:
    """What a log calls it."""
    return "SIGTERM" if isinstance(error, Terminated) else "Ctrl-C"


def exit_code(error: KeyboardInterrupt) -> int:
    """As a shell counts."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let the first SIGTERM raise `Terminated` in the main thread; further ones must not break off the cleaning up.

    An error that follows from it, as of workers that it ended too, becomes `Terminated`. Forks end by the signal as usual.
    """
    interruption = Interruption()

    def handle(number: int, frame: FrameType | None) -> None:
        interruption.number = number
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    with _handled({signal.SIGTERM: handle}), _as_interruption(interruption):
        yield


@contextmanager
def deferred() -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM wait until the block has seen to it that nothing is lost; a second Ctrl-C raises at once.

    The block ends by raising the interruption's `error()`; where it does not, leaving it does.
    """
    interruption = Interruption()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(2, b"\nending after this step; Ctrl-C again ends at once\n")
        interruption.number = interruption.number or number

    with _handled({signal.SIGINT: handle, signal.SIGTERM: handle}), _as_interruption(interruption):
        yield interruption
    if interruption.number:
        raise interruption.error()


def ignore(worker: int) -> None:
    """Let a data loader's worker leave both signals, which its whole process group may get, to the process that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@functools.cache
def kill_workers_at_exit() -> None:
    """Let this process not wait at its end, as after an error, for workers that ignore the signal by which Python ends them."""
    atexit.register(kill_workers)


def kill_workers() -> None:
    """End the workers of this process, some of which may hang while they ignore signals."""
    import multiprocessing

    workers = multiprocessing.active_children()
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's would report them
    for worker in workers:
        worker.kill()


@contextmanager
def _as_interruption(interruption: Interruption) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if interruption.number:
            raise interruption.error() from error
        raise


@contextmanager
def _handled(handlers: dict[int, object]) -> Iterator[None]:
    """Handle signals in the main thread, unless they are ignored, as under nohup, or handled by what is not Python."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        _end_forks_by_sigterm()
        for number, handler in handlers.items():
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@functools.cache
def _end_forks_by_sigterm() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_restore_sigterm)


def _restore_sigterm() -> None:
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
