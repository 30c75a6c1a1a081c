"""How a command ends: its exit code, a user's mistake as one line, and `--debug`. Importing this does not import torch."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from models import interrupts
from models.errors import UserError, install_command

# Packages whose absence is our mistake, not the user's.
PROJECT = ("benchmarks", "datasets", "efficientat", "helpers", "models", "studies", "web")
DEBUG = "--debug"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the description's line breaks, name each default that is not None, and list `--debug`, which `run` handles."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        for action in actions:
            self.add_argument(action)
            if "--help" in action.option_strings:
                self.add_argument(argparse.Action([DEBUG], "debug", nargs=0, help="show the traceback of an error"))


def run(main: Callable[[Sequence[str] | None], int], *, fast_exit: bool = False) -> None:
    """Run a command's `main` on the command line and leave with its exit code.

    A `UserError`, an `OSError`, memory that is full and a missing package are one line on standard error and exit code 1. Every
    other exception is a mistake in the code and gets its traceback; `--debug`, anywhere on the command line, shows it for all.
    Ctrl-C and SIGTERM are exceptions in `main`, which leaves no half-written files; the exit codes are 130 and 143. With
    `fast_exit` the process ends without cleaning up.
    """
    argv = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(argv) < len(sys.argv) - 1
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no UTF-8
    try:
        with interrupts.sigterm_raises():
            code = main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where an error is still reported
    except KeyboardInterrupt as error:
        code = interrupts.exit_code(error)
        print(f"interrupted by {interrupts.signal_name(error)}", file=sys.stderr)
        interrupts.kill_workers()
        if fast_exit:
            _leave(code)  # at once: behind this block, generators would wait for threads that still read
    except BrokenPipeError:  # whoever read the output has seen enough, such as `| head`
        code = 128 + 13  # as a program that the signal ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in PROJECT or debug:
            raise
        light = "; inference.py --backend onnx does without it" if package == "torch" else ""
        command = install_command("imagenet" if package == "torchvision" else "")
        code = _fail(f"this needs {package}, which is not installed: {command}{light}")
    except (UserError, OSError) as error:
        if debug:
            raise
        code = _fail(_one_line(error))
    except (MemoryError, *_full_gpu()) as error:
        if debug:
            raise
        memory = "memory" if isinstance(error, MemoryError) else "the GPU's memory"
        code = _fail(f"{memory} is full, use a smaller --batch_size: {_one_line(error)}")
    if fast_exit:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """Flush all output and end the process at once: unloading torch's libraries takes 0.5 s and 120 MB of peak memory."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)


def _fail(message: str) -> int:
    rank = os.environ.get("RANK") or "0"
    print(f"{'' if rank == '0' else f'rank {rank}: '}error: {message}", file=sys.stderr)
    interrupts.kill_workers()  # a data loader that an error has left would wait 10 s for them
    return 1


def _full_gpu() -> tuple[type[BaseException], ...]:
    """Return torch's error of a full GPU, which nothing can have raised where torch is not imported."""
    return (sys.modules["torch"].OutOfMemoryError,) if "torch" in sys.modules else ()


def _one_line(error: BaseException) -> str:
    """Return an error's message; of one raised in a data loader's worker, the message without that process's traceback."""
    message = str(error).strip()
    if "Original Traceback" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return printable(" ".join(message.split()))


def printable(text: object) -> str:
    r"""Return a text from outside, such as a label or a file's name, for one line of a terminal or a file.

    Control characters, line ends, bytes that are no UTF-8 and characters that override the direction of writing become \n, \t, \r
    or \uXXXX.
    """
    return _HIDDEN.sub(lambda match: _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}", str(text))


_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class LineFormatter(logging.Formatter):
    """Messages of a log with `printable` lines; a further line of a message is indented, so that none looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "\n  ".join(map(printable, record.message.split("\n")))
        return super().formatMessage(record)
