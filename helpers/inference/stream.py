"""`--stream` and `--microphone` of inference.py: print events as they begin and end, and what windows hold."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from datasets.streams.pcm import FORMATS
from datasets.streams.pipes import RAW, Stream, open_stream
from helpers import cli
from helpers.inference.microphone import Microphone, record
from helpers.inference.options import event_options
from helpers.tagger.results import top_tags
from helpers.tagger.streaming import StreamTagger
from models.command import printable
from models.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from helpers.tagger.audio_tagger import AudioTagger
    from helpers.tagger.events import Event

SIGNALS = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


def add_stream_options(parser: argparse.ArgumentParser, sources: argparse._ActionsContainer) -> None:
    """Add `--stream` and `--microphone` to the group of what a command can read, and what only they have to the parser.

    Both are `args.stream`: False, True, or a Microphone.
    """
    sources.add_argument(
        "--stream", action="store_true", help="read standard input as it comes: wav, flac, Ogg, mp3, or raw PCM of --format"
    )
    sources.add_argument(
        "--microphone",
        dest="stream",
        nargs="?",
        type=Microphone,
        const=Microphone(),
        default=False,
        metavar="DEVICE",
        help="listen to an input device, by its number or a part of its name (needs sounddevice)",
    )
    group = parser.add_argument_group("stream")
    group.add_argument("--format", choices=FORMATS, help=f"samples of raw PCM, without a header ({RAW['format']})")
    group.add_argument("--rate", type=cli.positive_int, help=f"sample rate of raw PCM ({RAW['rate']}) or of the microphone, in Hz")
    group.add_argument(
        "--channels", type=cli.positive_int, help=f"channels of raw PCM, interleaved, or of the microphone ({RAW['channels']})"
    )
    group.add_argument("--off_threshold", type=cli.unit_interval, help="score below which an event ends (half of --threshold)")
    group.add_argument("--show_top", type=cli.positive_int, metavar="N", help="also print each window with its N highest scores")


def tag_stream(tagger: AudioTagger, args: argparse.Namespace) -> int:
    """Print the events of standard input or a microphone as they begin and end; return the exit code."""
    with EndBySignal() as end:
        stream = _open(args, end)
        live = StreamTagger(
            tagger,
            stream.rate,
            channels=stream.channels,
            window=args.window,
            hop=args.hop,
            **event_options(args),
            labels=args.labels,
            channel=args.channel,
        )
        classes = tagger.classes(args.labels)

        def show(windows: Iterable[tuple[float, float, np.ndarray]]) -> None:
            for start, stop, scores in windows:
                if args.show_top:
                    tags = top_tags(tagger.labels, scores if scores.ndim == 1 else scores.max(0), args.show_top, 0, classes)
                    line = ", ".join(f"{tag.label} {tag.score:.3f}" for tag in tags)
                    print(f"top   {start:9.2f} {stop:9.2f}  {printable(line)}", flush=True)
                print_events(live.track(start, stop, scores))

        window, hop, (least, most) = live.window, live.hop, live.latency
        print(
            f"listening to {stream.kind}, {stream.rate} Hz, {stream.channels} channel{'s' * (stream.channels > 1)}; "
            f"the first window is complete after {window:g} s, "
            f"then the latency is {least:g} to {most:g} s"
            + (f"; of every {hop:g} s, {hop - window:g} s are not listened to" if hop > window else ""),
            file=sys.stderr,
        )

        def finish() -> None:
            show(live.last_windows())
            print_events(live.last_events())

        heard = False
        try:
            for piece in stream.blocks:
                heard = True
                show(live.windows(piece))
        except UserError:
            finish()  # before the line of the error
            raise
        finish()
        if not heard and not end.exit_code:
            logging.warning("the stream ended without any sound")
    return end.exit_code


def _open(args: argparse.Namespace, end: EndBySignal) -> Stream:
    if isinstance(args.stream, Microphone):
        if args.format:
            raise UserError("a microphone has no --format; leave it out")
        return record(args.stream, args.rate, args.channels or RAW["channels"], end.wait)
    if sys.stdin is None:
        raise UserError("standard input is closed; pipe a stream into it")
    pipe = _EndedPipe(sys.stdin.buffer, end)
    return open_stream(pipe, "standard input", format=args.format, rate=args.rate, channels=args.channels)


def print_events(events: Iterable[Event]) -> None:
    for event in events:
        if event.end is None:
            print(f"begin {event.start:9.2f}  {printable(event.label)} {event.score:.3f}", flush=True)
        else:
            print(f"end   {event.end:9.2f}  {printable(event.label)} from {event.start:.2f}, at most {event.score:.3f}", flush=True)


class EndBySignal:
    """Let Ctrl-C and SIGTERM end the sound rather than the program, so that the last events are still printed.

    A second one ends the program as usual.
    """

    exit_code = 0

    def __init__(self) -> None:
        self._ended = self._waiting = False
        self._handlers: dict[int, Callable | int] = {}

    def __enter__(self) -> EndBySignal:
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in SIGNALS:
                if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._handlers[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def wait(self, read: Callable[[], T]) -> T | None:
        """Return what `read` waits for; None when a signal came."""
        try:
            self._waiting = True
            return None if self._ended else read()
        except _Ended:
            return None
        finally:
            self._waiting = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.__exit__()
        self._ended, self.exit_code = True, 128 + number  # as a shell counts
        if self._waiting:
            raise _Ended


class _Ended(KeyboardInterrupt):
    """A signal came while sound was waited for."""


class _EndedPipe:
    """A pipe that also ends by a signal."""

    def __init__(self, file: BinaryIO, end: EndBySignal) -> None:
        self._read, self._end = getattr(file, "read1", file.read), end

    def read(self, size: int) -> bytes:
        return self._end.wait(lambda: self._read(size)) or b""
