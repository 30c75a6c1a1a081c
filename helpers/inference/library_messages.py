"""What libraries written in C print while a command reads a recording: held back, then reported with the recording's name."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from datasets.decoding.isolated import PRINTED_BYTES, in_one_line
from models.command import printable


@contextmanager
def told_with_name(name: str) -> Iterator[None]:
    """Hold back what libraries print on standard error; at the end, tell it in one line as a warning about the recording.

    What Python prints is printed at once. This changes descriptor 2 of the whole process, so it is for commands, which are alone
    in theirs.
    """
    try:
        console = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        held = tempfile.TemporaryFile(buffering=0)
    except OSError:  # standard error is closed, or the disk is full
        yield
        return
    own = sys.stderr
    with console, held:
        if _is_descriptor_2(own):
            _print_to(console, instead_of=own)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(console.fileno(), 2)
            _print_to(own, instead_of=console)
            held.seek(0)
            for line in in_one_line(name, held.read(PRINTED_BYTES)):
                print(f"warning: {printable(line)}", file=own)


def _is_descriptor_2(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 2
    except OSError:  # what tests put in its place may have none
        return False


def _print_to(stream: TextIO, *, instead_of: TextIO) -> None:
    instead_of.flush()
    if sys.stderr is instead_of:
        sys.stderr = stream
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is instead_of:
            handler.setStream(stream)
