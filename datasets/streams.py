"""Sound that is still being written, through a pipe: what it is, told by its first bytes, and its samples as they come.

Wav is read here, whatever sizes its header has; flac, Ogg, mp3 and others by PyAV, which needs 0.3 to 1.4 s of them in advance;
raw PCM needs its format, rate and channels from the user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from datasets.audio import AudioError
from datasets.mpeg_frames import mpeg_kind
from datasets.pcm import HEAD_BYTES, Pcm, container, to_float
from datasets.wav_stream import WavStream
from models.errors import UserError

RAW = {"format": "s16le", "rate": 32000, "channels": 1}  # what a stream without a header is taken for
_READ_SECONDS = 0.1  # of raw sound that a read waits for at most
_MPEG_BYTES = 6000  # hold three frames of mp3 or AAC of usual bit rates
_GAP_SECONDS = 0.02  # time stamps of some containers are whole milliseconds
_DEMUXERS = {"ogg": "ogg", "matroska": "matroska", "mp4": "mov"}  # ffmpeg's names, where they differ from ours


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

    `format` (see `datasets.pcm.FORMATS`), `rate` in Hz and `channels` are those of a stream without a header, None as in `RAW`; a
    header that contradicts them is a UserError. AudioError for damage; what a stream that breaks off lacks is logged.
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
    while container(head) == "mp3" and len(head) >= 10:  # an ID3v2 tag (id3.org, 2.4.0, section 3.1)
        size = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        while size and (piece := reader.read(min(size, 1 << 16))):
            size -= len(piece)
        tagged, head = True, reader.peek(HEAD_BYTES)
    if kind := container(head):
        return kind
    if head[:1] == b"\xff" and (kind := mpeg_kind(reader.peek(_MPEG_BYTES))):
        return kind
    return "mp3" if tagged else None


def _raw(reader: Reader, pcm: Pcm, values: int) -> Iterator[np.ndarray]:
    size = max(1, round(values * _READ_SECONDS)) * pcm.width
    while piece := reader.read(size):
        yield pcm.push(piece)


def _compressed(reader: Reader, kind: str, name: str) -> Stream:
    frames = _frames(reader, kind, name)
    first = next(frames, None)
    if first is None:
        raise AudioError(f"{name} is {kind} that holds no samples")
    return Stream(kind, first[0], first[1].shape[1], _same_form(first, frames, name))


def _same_form(first: tuple[int, np.ndarray], rest: Iterator[tuple[int, np.ndarray]], name: str) -> Iterator[np.ndarray]:
    rate, block = first
    yield block
    channels, done = block.shape[1], len(block)
    for new_rate, block in rest:
        if (new_rate, block.shape[1]) != (rate, channels):
            forms = f"{rate} Hz, {channels} channels to {new_rate} Hz, {block.shape[1]} channels"
            raise AudioError(f"{name} changes after {done / rate:.2f} s from {forms}; begin anew from there")
        done += len(block)
        yield block


def _frames(reader: Reader, kind: str, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rate and (samples, channels) float32 of each frame that is whole; gaps between them are logged."""
    try:
        import av
    except ImportError as error:
        raise AudioError(f"{name} is {kind}, which PyAV reads; install it by: pip install av") from error
    options = {"probesize": "4096", "analyzeduration": "0", "protocol_whitelist": ""}
    try:
        with av.open(reader, format=_DEMUXERS.get(kind, kind), options=options, buffer_size=4096) as file:
            if not file.streams.audio:
                raise AudioError(f"{name} is {kind} without sound")
            stream = file.streams.audio[0]
            stream.codec_context.thread_count = 1  # more would hold frames back
            gaps = _Gaps(name)
            for packet in file.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    continue  # shows as a gap
                for frame in frames:
                    gaps.look(frame.time, frame.samples / frame.sample_rate)
                    samples = to_float(frame.to_ndarray()).astype(np.float32, copy=False)
                    channels = frame.layout.nb_channels
                    yield frame.sample_rate, samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    except av.error.FFmpegError as error:
        raise AudioError(f"{name} is {kind} that cannot be read as it comes ({error.strerror}); write it into a file") from error


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
