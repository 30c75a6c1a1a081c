"""Tell mp3 and AAC that begin with a frame, and no other header, from raw samples."""

from __future__ import annotations

from datasets.decoding.mp3 import frame_bytes

_FRAMES = 3  # in a row; one of 2^11 bytes looks like a header by chance


def mpeg_kind(head: bytes) -> str | None:
    """Return "mp3" or "aac" where the bytes begin with three frames of it, or with as many as there are."""
    for kind, length in (("mp3", frame_bytes), ("aac", _adts_frame_bytes)):
        start = found = 0
        while found < _FRAMES and start + 6 <= len(head) and (size := length(head[start : start + 6])):
            start += size
            found += 1
        if found == _FRAMES or (found and start >= len(head)):
            return kind
    return None


def _adts_frame_bytes(head: bytes) -> int:
    """Length of the AAC frame that begins so (ISO 13818-7, 6.2); 0 if none does."""
    if head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return size if size > 7 else 0
