"""What the commands of inference.py take from its options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from datasets.decoding.isolated import TIME_LIMIT
from helpers import cli
from helpers.inference.sources import STANDARD_INPUT, Inputs
from helpers.tagger.events import THRESHOLD

# What rows depend on: a run is resumed with the same.
RUN_OPTIONS = (
    "model_name", "ensemble", "backend", "whole", "min_seconds", "start", "end", "channel", "per_channel", "strict",
    "top_k", "threshold", "off_threshold", "median", "labels", "window", "hop", "layers", "pooling", "timestamps",
)  # fmt: skip


class StandardInput:
    """Standard input as a file with a name."""

    name = "standard input"

    def read(self, size: int = -1) -> bytes:
        return sys.stdin.buffer.read(size)


def threshold(text: str) -> float | str:
    """Parse a threshold, or the path of a table of them."""
    return text if text.lower().endswith((".csv", ".tsv", ".txt")) else cli.unit_interval(text)


def add_reading_options(parser: argparse._ActionsContainer, what: str) -> None:
    """Add the options of how recordings are read; `what` is given up at the time limit."""
    parser.add_argument("--channel", type=cli.positive_int, help="use this channel alone, the first is 1 (a mix of all)")
    parser.add_argument("--per_channel", action="store_true", help="use each channel as a recording of its own")
    parser.add_argument("--strict", action="store_true", help="refuse damaged recordings that are otherwise used with a warning")
    parser.add_argument(
        "--time_limit",
        type=cli.non_negative_float,
        default=TIME_LIMIT,
        help=f"give {what} up if decoding it makes no progress for so many seconds; 0: decode without processes",
    )


def event_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `helpers.tagger.recording_events.event_tracker` takes."""
    given = THRESHOLD if args.threshold is None else args.threshold
    return {"threshold": given, "off_threshold": args.off_threshold, "median_frames": args.median}


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in RUN_OPTIONS} | {"events": args.events is not None}


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    return {"start": args.start, "end": args.end, "channel": args.channel, "strict": args.strict}


def decoding_options(args: argparse.Namespace, inputs: Inputs) -> dict[str, Any]:
    """A single recording is decoded in this process, which begins sooner."""
    return {"time_limit": None if inputs.is_one or args.time_limit == 0 else args.time_limit}


def open_inputs(inputs: Inputs) -> Iterable[str | StandardInput]:
    return [StandardInput()] if inputs.first == STANDARD_INPUT else inputs.remaining
