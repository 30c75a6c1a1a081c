"""Look at the container of a recording before it is decoded."""

from datasets.decoding import chunks, flac, mp3, mp4, ogg
from datasets.decoding.content import Content
from datasets.decoding.structure import Structure

# what files begin with that are no MPEG audio
_OTHERS = (b"NIST", b"Crea", b"\x1aE\xdf\xa3", b"0&\xb2u", b"FLV", b"wvpk", b"#!AMR")
_OTHERS += (b"\x00\x00\x01\xba", b"\x0bw", b"MAC ", b"TTA", b"DSD ", b"MPCK", b"MP+", b"tBaK")
_WITHIN_FRAME = 1 << 12  # bytes in which frames of MPEG audio begin if a file begins within one
_PADDING = 1 << 18  # the same for zeros, and behind tags


def has_known_beginning(content: Content) -> bool:
    """Whether a file begins like a container that is known here; others may be recordings as well."""
    return mp4.is_mp4(content) or content.read(0, 12).startswith((b"ID3", b"fLaC", b"OggS", *chunks.MARKS, *_OTHERS))


def inspect(content: Content, seconds: float | None = None) -> Structure:
    """Return how a recording is to be read; with `seconds`, if only so much of it is."""
    start = mp3.skip_id3(content)
    head = content.read(start, 12)
    if head[:4] == b"fLaC":
        return flac.inspect(content, start)
    if head[:4] == b"OggS":
        return ogg.inspect(content, start, seconds)
    if start == 0 and (structure := chunks.inspect(content)):
        return structure
    if start == 0 and mp4.is_mp4(content):
        return mp4.inspect(content)
    if head.startswith(_OTHERS):
        return Structure(view=content.view(start) if start else None)
    search = _PADDING if start or not any(head) else _WITHIN_FRAME
    if structure := mp3.inspect(content, start, search, seconds):
        return structure
    # libsndfile would search for frames, and print what it thinks of them; frames of a free bit rate (code 0) it alone can read
    is_mpeg = start > 0 or (head[:1] == b"\xff" and head[1:2] >= b"\xe0" and head[2:3] >= b"\x10")
    return Structure(whole=not is_mpeg, view=content.view(start) if start else None)
