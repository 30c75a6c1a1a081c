"""Ogg streams one behind the other, as internet radio sends them song by song: ffmpeg drops those of another rate in silence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets.streams import Reader

_PAGE = b"OggS\0"  # begins each page (RFC 3533, section 6); bit 1 of the next byte says that a stream begins
_PAGES = re.compile(_PAGE + b"(.)", re.DOTALL)


class OggLink:
    """Reads one link of a chain: up to the first page that begins a stream behind pages that did not."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._held = b""  # what may be the beginning of a page
        self._begun = False  # a page that does not begin a stream was seen
        self.follows = False  # another link follows this one, which has been read to its end

    def read(self, size: int) -> bytes:
        """Return what is there, up to `size` bytes (6 or more); wait for the first of them; nothing at the end of the link."""
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
        """Return how much of the content belongs to this link for sure."""
        for page in _PAGES.finditer(content):
            begins = bool(page[1][0] & 2)
            if begins and self._begun:
                self.follows = True
                return page.start()
            self._begun = self._begun or not begins
        tail = next((size for size in range(len(_PAGE), 0, -1) if content.endswith(_PAGE[:size])), 0)
        return len(content) - tail
