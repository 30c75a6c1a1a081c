"""Look at the container of a recording before it is decoded."""

from datasets.decoding import flac, mp3, ogg, riff
from datasets.decoding.content import Content
from datasets.decoding.structure import Structure

# what files begin with that are no MPEG audio, at which offset
_OTHERS = ((0, b"FORM"), (0, b".snd"), (0, b"caff"), (0, b"riff"), (0, b"NIST"), (0, b"Crea"), (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"))
_OTHERS += (
    (0, b"0&\xb2u"),
    (0, b"FLV"),
    (0, b"wvpk"),
    (0, b"#!AMR"),
    (0, b"\x00\x00\x01\xba"),
    (0, b"\x0bw"),
    (4, b"moov"),
    (4, b"mdat"),
)
_OTHERS += ((0, b"MAC "), (0, b"TTA"), (0, b"DSD "), (0, b"MPCK"), (0, b"MP+"), (0, b"tBaK"), (4, b"wide"), (4, b"free"))
_WITHIN_FRAME = 1 << 12  # bytes in which frames of MPEG audio begin if a file begins within one
_PADDING = 1 << 18  # the same for zeros, and behind tags


def inspect(content: Content, seconds: float | None = None) -> Structure:
    """Return how a recording is to be read; with `seconds`, if only so much of it is."""
    start = mp3.skip_id3(content)
    head = content.read(start, 12)
    if head[:4] == b"fLaC":
        return flac.inspect(content, start)
    if head[:4] == b"OggS":
        return ogg.inspect(content, start, seconds)
    if start == 0 and head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return riff.inspect(content)
    if any(head[offset : offset + len(mark)] == mark for offset, mark in _OTHERS):
        return Structure(view=content.view(start) if start else None)
    search = _PADDING if start or not any(head) else _WITHIN_FRAME
    return mp3.inspect(content, start, search, seconds) or Structure(view=content.view(start) if start else None)
