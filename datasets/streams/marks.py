"""What recordings begin with: the marks of containers, and the frames of what has none."""

from __future__ import annotations

import re

from datasets.decoding.mp3 import frame_bytes

HEAD_BYTES = 12  # that `container` needs
FRAMES_BYTES = 6000  # that `unmarked` needs: they hold three frames of mp3, or of AAC and AC-3 at usual bit rates

_MARKS = (
    ("avi", 8, (b"AVI ",)),
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
    ("asf", 0, (b"0&\xb2u",)),
    ("flv", 0, (b"FLV\1",)),
    ("mpeg", 0, (b"\0\0\1\xba",)),
    ("wavpack", 0, (b"wvpk",)),
    ("tta", 0, (b"TTA1", b"TTA2")),
    ("ape", 0, (b"MAC ",)),
    ("tak", 0, (b"tBaK",)),
    ("dsf", 0, (b"DSD ",)),
    ("musepack", 0, (b"MPCK", b"MP+\7")),
    ("amr", 0, (b"#!AMR",)),
    ("voc", 0, (b"Creative",)),
    ("nist", 0, (b"NIST",)),
)
_FRAMES = 3  # in a row; one of 2^11 bytes looks like a header by chance
UNMARKED = re.compile(rb"[\xff\x0b\x47]|[\t\n\r -~]{12}")  # what all that `unmarked` knows begins with
_AC3 = b"\x0b\x77"  # begins each frame
_TS_BYTES = 188  # of a packet of an MPEG transport stream, whose first one is 0x47
_TEXT = re.compile(rb"(?=[!-~]*[\n ])[\t\n\r -~]{32}")  # a line of which begins with a word


def container(head: bytes) -> str | None:
    """Return which container, such as wav or flac, a recording is in that begins with these `HEAD_BYTES`; None for none of them."""
    for kind, offset, marks in _MARKS:
        if head[offset : offset + len(marks[0])] in marks:
            return kind
    return None


def unmarked(head: bytes) -> str | None:
    """Return "mp3", "aac", "ac3", "mpegts" or "text" where `FRAMES_BYTES`, or all there are, begin so; None for anything else."""
    for kind, length in (("mp3", frame_bytes), ("aac", _adts_frame_bytes)):
        start = found = 0
        while found < _FRAMES and start + 6 <= len(head) and (size := length(head[start : start + 6])):
            start += size
            found += 1
        if found == _FRAMES or (found and start >= len(head)):
            return kind
    if head[:2] == _AC3 and _AC3 in head[64:]:
        return "ac3"
    if len(head) > 2 * _TS_BYTES and set(head[::_TS_BYTES]) == {0x47}:
        return "mpegts"
    return "text" if _TEXT.match(head) else None


def _adts_frame_bytes(head: bytes) -> int:
    """Length of the AAC frame that begins so (ISO 13818-7, 6.2); 0 if none does."""
    if head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return size if size > 7 else 0
