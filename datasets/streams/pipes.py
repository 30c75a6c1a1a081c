"""Sound that is still being written, through a pipe: what it is, by its first bytes, and its samples as they come.

Wav is read here, whatever sizes its header has; flac, Ogg, mp3 and others by PyAV, which needs 0.3 to 1.4 s of them in advance;
raw PCM needs its format, rate and channels from the user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from datasets.audio import AudioError
from datasets.decoding.mp3 import id3_bytes
from datasets.decoding.pyav import FullDecoder
from datasets.streams.links import CHAINED, Link
from datasets.streams.marks import FRAMES_BYTES, HEAD_BYTES, UNMARKED, container, unmarked
from datasets.streams.pcm import Pcm
from datasets.streams.wav import WavStream
from models.errors import UserError

if TYPE_CHECKING:
    import av

RAW = {"format": "s16le", "rate": 32000, "channels": 1}  # what a stream without a header is taken for
_READ_SECONDS = 0.1  # of raw sound that a read waits for at most
_GAP_SECONDS = 0.02  # time stamps of some containers are whole milliseconds
_DEMUXERS = (
    "flac",
    "ogg",
    "mp3",
    "aac",
    "ac3",
    "mpegts",
    "matroska",
    "au",
    "wav",
    "avi",
)  # ffmpeg's names of what it can read as it comes


@dataclass(frozen=True)
class Stream:
    """A stream that is read once."""

    kind: str  # "wav", "flac", "ogg", "mp3", ..., or "raw PCM"
    rate: int  # Hz
    channels: int
    blocks: Iterator[np.ndarray]  # (samples, channels) float32, as they come; AudioError for what cannot be used


class Reader:
    """A pipe whose bytes can be looked at before they are read, and given back."""

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "read1", file.read)
        self._ahead = b""

    def read(self, size: int) -> bytes:
        """Return what is there, up to `size` bytes; wait for the first of them; nothing at the end."""
        if not self._ahead:
            return self._read(size)
        piece, self._ahead = self._ahead[:size], self._ahead[size:]
        return piece

    def exactly(self, size: int) -> bytes:
        """Wait for `size` bytes; return fewer at the end only."""
        pieces, left = [], size
        while left and (piece := self.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def unread(self, content: bytes) -> None:
        self._ahead = content + self._ahead

    def peek(self, size: int) -> bytes:
        content = self.exactly(size)
        self.unread(content)
        return content


def open_stream(
    file: BinaryIO, name: str = "stream", *, format: str | None = None, rate: int | None = None, channels: int | None = None
) -> Stream:
    """Wait for the beginning of a stream and tell what it is.

    `format` (see `datasets.streams.pcm.FORMATS`), `rate` in Hz and `channels` are those of a stream without a header, None as in
    `RAW`; a header that contradicts them is a UserError. AudioError for damage; what a stream that breaks off lacks is logged.
    """
    reader = Reader(file)
    kind = _kind(reader)
    if kind is None:
        given = {"format": format, "rate": rate, "channels": channels}
        format, rate, channels = (RAW[key] if value is None else value for key, value in given.items())
        return Stream("raw PCM", rate, channels, _raw(reader, Pcm(format, channels), rate * channels))
    wav = WavStream(reader, name) if kind == "wav" else None
    if wav is not None and wav.is_pcm:
        stream, found = Stream(kind, wav.rate, wav.channels, wav.blocks()), wav.format
    else:
        stream, found = _compressed(reader, kind, name), None
    for what, value, true in (("format", format, found), ("rate", rate, stream.rate), ("channels", channels, stream.channels)):
        if value not in (None, true):
            holds = f"{kind} of {stream.rate} Hz, {stream.channels} channels" + (f", {found}" if found else "")
            raise UserError(f"{name} is {holds}, which contradicts {what} {value}; leave {what} out, its header is read")
    return stream


def _kind(reader: Reader) -> str | None:
    """Tell what the stream is; an ID3 tag in front is taken away."""
    head = reader.peek(HEAD_BYTES)
    tagged = False
    while size := id3_bytes(head):
        while size and (piece := reader.read(min(size, 1 << 16))):
            size -= len(piece)
        tagged, head = True, reader.peek(HEAD_BYTES)
    if kind := container(head):
        return kind
    if UNMARKED.match(head) and (kind := unmarked(reader.peek(FRAMES_BYTES))):
        return kind
    return "mp3" if tagged else None


def _raw(reader: Reader, pcm: Pcm, values: int) -> Iterator[np.ndarray]:
    size = max(1, round(values * _READ_SECONDS)) * pcm.width
    while piece := reader.read(size):
        yield pcm.push(piece)


def _compressed(reader: Reader, kind: str, name: str) -> Stream:
    if kind == "text":
        raise AudioError(f"{name} is text and no sound; look at what the pipe sends")
    if kind not in _DEMUXERS:
        raise AudioError(f"{name} is {kind}, which cannot be read as it comes; write it into a file, or send wav or flac")
    link = Link(reader, kind) if kind in CHAINED else reader
    try:
        decoder = _LiveDecoder(link, kind, name)
    except AudioError as error:
        raise AudioError(f"{name} is {kind} that cannot be read as it comes ({error}); write it into a file") from error
    return Stream(kind, decoder.rate, decoder.channels, _decoded(decoder, reader, link, kind, name))


def _decoded(decoder: _LiveDecoder, reader: Reader, link: Reader | Link, kind: str, name: str) -> Iterator[np.ndarray]:
    """Yield the blocks of a stream, and of further ones of its kind behind it, at its rate and in its channels."""
    yield from decoder.blocks()
    while isinstance(link, Link) and link.follows:
        link = Link(reader, kind)
        try:
            yield from _LiveDecoder(link, kind, name, decoder.rate, decoder.channels).blocks()
        except AudioError as error:
            raise AudioError(f"{name} cannot be read further ({error})") from error
    if reader.read(1):
        logging.warning(f"{name} continues behind the end of its {kind}; that is not read")


class _LiveDecoder(FullDecoder):
    """The full decoder of a pipe, which reports gaps."""

    def __init__(self, pipe: Reader | Link, kind: str, name: str, rate: int | None = None, channels: int | None = None) -> None:
        self._gaps = _Gaps(name)
        super().__init__(pipe, rate, channels, live=kind)

    def _frames(self) -> Iterator[av.AudioFrame]:
        for frame in super()._frames():
            self._gaps.look(frame.time, frame.samples / frame.sample_rate)
            yield frame
        if self._container.format.name == "flac" and self._container.duration:  # that of its header
            self._gaps.look_at_end(self._container.duration / self._av.time_base)


class _Gaps:
    """Log where the time stamps of frames jump, because what was between them is damaged."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next: float | None = None  # time stamp in seconds
        self._done = 0.0

    def look(self, time: float | None, seconds: float) -> None:
        """Take the time stamp of the next frame, which lasts so many seconds."""
        if time is not None:
            if self._next is not None and time - self._next > _GAP_SECONDS:
                logging.warning(f"{self._name} is damaged after {self._done:.2f} s: {time - self._next:.2f} s are missing")
            self._next = time
        self._next = None if self._next is None else self._next + seconds
        self._done += seconds

    def look_at_end(self, end: float) -> None:
        """Take the time stamp at which the last frame should end."""
        if self._next is not None and end - self._next > _GAP_SECONDS:
            logging.warning(f"{self._name} breaks off after {self._done:.1f} s; by its header {end - self._next:.1f} s are missing")
