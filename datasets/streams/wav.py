"""Wav files that come through a pipe: chunks of any order and size, and sizes that their writer could not know."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from datasets.audio import AudioError
from datasets.decoding.chunks import is_unknown
from datasets.streams.pcm import Pcm

if TYPE_CHECKING:
    from datasets.streams.pipes import Reader

_FORMATS = {  # (format tag, bits of a sample) -> name in `datasets.streams.pcm`
    (1, 8): "u8",
    (1, 16): "s16le",
    (1, 24): "s24le",
    (1, 32): "s32le",
    (3, 32): "f32le",
    (3, 64): "f64le",
    (6, 8): "alaw",
    (7, 8): "mulaw",
}
_EXTENSIBLE = 0xFFFE
_MAX_HEAD = 1 << 24  # bytes in front of the samples
_READ_BYTES = 1 << 16
_CHUNK_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_ ]{3}")


class WavStream:
    """The header of a wav file, read from a pipe, and its samples."""

    def __init__(self, reader: Reader, name: str) -> None:
        """Read until the samples begin; where they are not PCM (`is_pcm`), put back what was read."""
        self._reader, self._name = reader, name
        self._head = b""
        self._take(12, "header")
        self._size: int | None = None
        self._read_chunks()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield (samples, channels) float32, also of further wav files of the same form behind the first."""
        while True:
            yield from self._samples()
            if not self._next_file():
                return

    def _read_chunks(self) -> None:
        """Read the chunks in front of the samples."""
        big_endian = self._head[:4] == b"RIFX"
        self.is_pcm = not big_endian and self._head[8:12] == b"WAVE"
        long_size = None  # that of RF64
        form = None
        while self.is_pcm:
            name, size = struct.unpack("<4sI", self._take(8, "samples"))
            if name == b"data":
                if form is None:
                    raise AudioError(f"{self._name} is wav whose samples come before their format")
                if size == 0xFFFFFFFF and long_size is not None:
                    self._size = long_size if 0 < long_size < 1 << 62 else None
                else:
                    self._size = None if size == 0 or is_unknown(size) else size
                break
            content = self._take(size + size % 2, "samples")
            if name == b"ds64" and size >= 16:
                [long_size] = struct.unpack_from("<Q", content, 8)
            elif name == b"fmt ":
                form = self._form(content)
        if not self.is_pcm:
            self._reader.unread(self._head)
        self._head = b""

    def _form(self, content: bytes) -> tuple[str, int, int] | None:
        if len(content) < 16:
            raise AudioError(f"{self._name} is wav with a damaged format")
        tag, self.channels, self.rate, _, frame, bits = struct.unpack_from("<HHIIHH", content)
        if tag == _EXTENSIBLE and len(content) >= 26:
            [tag] = struct.unpack_from("<H", content, 24)
        self.format = _FORMATS.get((tag, 8 * frame // max(1, self.channels)))
        self.is_pcm = self.format is not None and self.channels > 0 and self.rate > 0
        return self.form

    @property
    def form(self) -> tuple[str | None, int, int]:
        return self.format, self.channels, self.rate

    def _take(self, size: int, before: str) -> bytes:
        """Read so many bytes of the header and remember them."""
        if len(self._head) + size > _MAX_HEAD:
            raise AudioError(f"{self._name} is wav with more than {_MAX_HEAD >> 20} MB in front of its samples")
        content = self._reader.exactly(size)
        if len(content) < size:
            raise AudioError(f"{self._name} is wav that ends before its {before}")
        self._head += content
        return content

    def _samples(self) -> Iterator[np.ndarray]:
        pcm, left = Pcm(self.format, self.channels), self._size
        frame = pcm.width * self.channels
        while (left is None or left > 0) and (piece := self._reader.read(_READ_BYTES if left is None else min(_READ_BYTES, left))):
            left = None if left is None else left - len(piece)
            yield pcm.push(piece)
        if left:
            seconds, missing = (self._size - left) / frame / self.rate, left / frame / self.rate
            logging.warning(f"{self._name} breaks off after {seconds:.1f} s; by its header {missing:.1f} s are missing")
        elif self._size and self._size % 2:
            self._reader.read(1)

    def _next_file(self) -> bool:
        """Pass over what is behind the samples; return whether it is more sound."""
        while len(head := self._reader.exactly(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name in (b"RIFF", b"RF64", b"BW64"):
                self._reader.unread(head)
                form = self.form
                self._take(12, "header")
                self._read_chunks()
                if not self.is_pcm or self.form != form:
                    raise AudioError(f"{self._name} is wav files of different form, {form} and {self.form}")
                return True
            if not _CHUNK_NAME.fullmatch(name) or size > _MAX_HEAD:
                logging.warning(f"{self._name} has more sound than its header says; it is read to its end")
                self._reader.unread(head)
                self._size = None
                return True
            size += size % 2
            while size and (piece := self._reader.read(min(size, _READ_BYTES))):
                size -= len(piece)
        return False
