"""Ogg, FLAC or AU streams one behind the other, as internet radio sends them song by song.

ffmpeg drops those of another rate, or makes noise of them or of their headers. So each is given to it alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets.streams.pipes import Reader

# kind -> what begins an Ogg page (RFC 3533, section 6), a FLAC stream (RFC 9639, section 8) or an AU header; where a stream begins,
# also what follows that: bit 1 of a page's flags, the header of the first FLAC block, or the five numbers of an AU header (where
# the sound begins, bytes, encoding, Hz, channels) in their ranges; and how long both are
_MARKS = {
    "ogg": (b"OggS\0", re.compile(rb"OggS\0(.)", re.DOTALL), 6),
    "flac": (b"fLaC", re.compile(rb"fLaC[\0\x80]\0\0\x22"), 8),
    "au": (b".snd", re.compile(rb"\.snd\0\0......\0\0\0[\1-\x1b]\0...\0\0\0.", re.DOTALL), 24),
}
CHAINED = tuple(_MARKS)


class Link:
    """Reads one stream of several: up to the beginning of the next."""

    def __init__(self, reader: Reader, kind: str) -> None:
        """`kind` is one of `CHAINED`."""
        self._reader, self._is_ogg = reader, kind == "ogg"
        self._mark, self._pattern, self._length = _MARKS[kind]
        self._held = b""  # what may be a mark
        self._begun = False  # what begins the next stream can come from now on: Ogg begins with several such pages
        self.follows = False  # another stream follows this one, which has been read to its end

    def read(self, size: int) -> bytes:
        """Return what is there, up to `size` bytes (24 or more); wait for the first of them; nothing at the end of the stream."""
        while not self.follows and (piece := self._reader.read(max(1, size - len(self._held)))):
            content = self._held + piece
            end = self._end(content)
            self._held = content[end:]
            if self.follows:
                self._reader.unread(self._held)
            if end:
                return content[:end]
        rest, self._held = self._held, b""
        return b"" if self.follows else rest

    def _end(self, content: bytes) -> int:
        """Return how much of the content belongs to this stream for sure."""
        for found in self._pattern.finditer(content):
            begins = not self._is_ogg or bool(found[1][0] & 2)
            if begins and self._begun:
                self.follows = True
                return found.start()
            self._begun = self._begun or not (self._is_ogg and begins)
        for size in range(min(len(content), self._length - 1), 0, -1):
            if self._mark.startswith(content[-size:][: len(self._mark)]):
                return len(content) - size
        return len(content)
