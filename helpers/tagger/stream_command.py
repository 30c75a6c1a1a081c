"""`--stream` of inference.py: print the events of standard input as they begin and end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from helpers import cli
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS
from helpers.tagger.streaming import THRESHOLD, StreamTagger, read_pieces
from models.errors import UserError

if TYPE_CHECKING:
    from helpers.tagger.audio_tagger import AudioTagger
    from helpers.tagger.events import Event


def add_stream_options(parser: argparse.ArgumentParser, sources: argparse._ActionsContainer) -> None:
    """Add `--stream` to the group of what a command can read, and what only streams have to the parser."""
    sources.add_argument("--stream", action="store_true", help="read raw 16-bit little-endian PCM from standard input")
    group = parser.add_argument_group("stream")
    group.add_argument("--rate", type=cli.positive_int, default=32000, help="sample rate of the PCM in Hz")
    group.add_argument("--channels", type=cli.positive_int, default=1, help="channels of the PCM, interleaved")
    group.add_argument("--off_threshold", type=cli.unit_interval, help="score below which an event ends (half of --threshold)")


def tag_stream(tagger: AudioTagger, args: argparse.Namespace) -> int:
    """Print the events of standard input as they begin and end; return the exit code."""
    if sys.stdin is None:
        raise UserError("standard input is closed; pipe a stream into it")
    window, hop = args.window or WINDOW_SECONDS, args.hop or HOP_SECONDS
    stream = StreamTagger(
        tagger,
        args.rate,
        channels=args.channels,
        window=window,
        hop=hop,
        threshold=THRESHOLD if args.threshold is None else args.threshold,
        off_threshold=args.off_threshold,
        labels=args.labels,
    )
    print(
        f"listening at {args.rate} Hz; the first window is complete after {window:g} s, "
        f"then the latency is {max(0, window - hop) / 2:g} to {(window + hop) / 2:g} s",
        file=sys.stderr,
    )
    try:
        for piece in read_pieces(sys.stdin.buffer, args.rate, args.channels):
            print_events(stream.feed(piece))
    except KeyboardInterrupt:  # how a recording usually ends
        print_events(stream.finish())
        raise
    print_events(stream.finish())
    return 0


def print_events(events: Iterable[Event]) -> None:
    for event in events:
        if event.end is None:
            print(f"begin {event.start:9.2f}  {event.label} {event.score:.3f}", flush=True)
        else:
            print(f"end   {event.end:9.2f}  {event.label} from {event.start:.2f}, at most {event.score:.3f}", flush=True)
