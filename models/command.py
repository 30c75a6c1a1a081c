"""How a command ends: its exit code, and a user's mistake as one line. Importing this does not import torch."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from models.assets import AssetError

PROJECT = ("benchmarks", "datasets", "helpers", "models", "studies")  # packages whose absence is our mistake, not the user's


def run(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a script's `main` and leave with its exit code; a user's mistake is one line on standard error and exit code 1.

    `python -X dev SCRIPT` shows the traceback instead.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no UTF-8
    try:
        code = main(None)
    except KeyboardInterrupt:
        code = 130
        print("interrupted", file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has seen enough, such as `| head`
        code = 128 + 13  # as a program that the signal ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in PROJECT or sys.flags.dev_mode:
            raise
        code = 1
        light = "; inference.py --backend onnx does without it" if package == "torch" else ""
        needed = "requirements-imagenet.txt" if package == "torchvision" else "requirements.txt"
        print(f"error: this needs {package}, which is not installed: pip install -r {needed}{light}", file=sys.stderr)
    except (ValueError, OSError, AssetError, *_out_of_memory()) as error:
        if sys.flags.dev_mode:
            raise
        code = 1
        who = f"process {os.environ['RANK']}: " if int(os.environ.get("RANK", "0")) else ""
        advice = "the GPU's memory is full, use a smaller --batch_size: " if isinstance(error, _out_of_memory()) else ""
        print(f"{who}error: {advice}{_one_line(error)}", file=sys.stderr)
    sys.exit(code)


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """Return torch's error of a full GPU, which nothing can have raised where torch is not imported."""
    return (sys.modules["torch"].OutOfMemoryError,) if "torch" in sys.modules else ()


def _one_line(error: BaseException) -> str:
    """Return an error's message; of one raised in a data loader's worker, the message without that process's traceback."""
    message = str(error).strip()
    if "Original Traceback" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())
