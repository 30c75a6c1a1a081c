"""What the command-line scripts share: help texts and types of options. Importing this does not import torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from models.command import HelpFormatter as HelpFormatter
from models.command import run as run


def positive_int(text: str) -> int:
    """Parse an option that counts something."""
    return _parse(int, text, 1, "a whole number of at least 1")


def non_negative_int(text: str) -> int:
    """Parse an option that counts something, where 0 turns it off."""
    return _parse(int, text, 0, "a whole number of at least 0")


def positive_float(text: str) -> float:
    """Parse a length, rate or factor."""
    return _parse(float, text, sys.float_info.min, "a number above 0")


def clip_seconds(text: str) -> float:
    """Parse the length of clips, which are held in memory."""
    return _parse(float, text, sys.float_info.min, "a number of seconds above 0, 3600 at most", highest=3600)


def non_negative_float(text: str) -> float:
    """Parse a length, rate or factor, where 0 turns it off."""
    return _parse(float, text, 0, "a number of at least 0")


def unit_interval(text: str) -> float:
    """Parse a share."""
    return _parse(float, text, 0, "a number from 0 to 1", highest=1)


def seed(text: str) -> int:
    """Parse the seed of a random generator."""
    return _parse(int, text, 0, "a whole number from 0 to 2^63 - 1", highest=2**63 - 1)


def absolute_path(text: str) -> Path:
    """Parse a path that a resumed run must find from any working directory."""
    return Path(text).expanduser().absolute()


def figure_path(text: str) -> Path:
    """Parse the path of a figure to be drawn."""
    if Path(text).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png, .pdf or .svg, not {text!r}")
    return Path(text)


def _parse(kind: type, text: str, lowest: int, meaning: str, highest: float = sys.float_info.max) -> Any:
    try:
        value = kind(text)
        if lowest <= value <= highest:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be {meaning}, not {text!r}")
