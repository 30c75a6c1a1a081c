"""What recordings begin with: the marks of containers, and frames of mp3 and AAC that have none."""

from __future__ import annotations

from datasets.decoding.mp3 import frame_bytes

HEAD_BYTES = 12  # that `container` needs
MPEG_BYTES = 6000  # that `mpeg_kind` needs: they hold three frames of mp3, or of AAC at usual bit rates

_MARKS = (
    ("wav", 0, (b"RIFF", b"RF64", b"BW64", b"RIFX")),
    ("flac", 0, (b"fLaC",)),
    ("ogg", 0, (b"OggS",)),
    ("mp3", 0, (b"ID3\2", b"ID3\3", b"ID3\4")),
    ("matroska", 0, (b"\x1aE\xdf\xa3",)),
    ("mp4", 4, (b"ftyp",)),
    ("aiff", 8, (b"AIFF", b"AIFC")),
    ("au", 0, (b".snd",)),
    ("caf", 0, (b"caff",)),
    ("w64", 0, (b"riff",)),
)
_FRAMES = 3  # in a row; one of 2^11 bytes looks like a header by chance


def container(head: bytes) -> str | None:
    """Return which container, such as wav or flac, a recording is in that begins with these `HEAD_BYTES`; None for none of them."""
    for kind, offset, marks in _MARKS:
        if head[offset : offset + len(marks[0])] in marks:
            return kind
    return None


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
