"""The mp4 family (ISO base media, QuickTime): boxes of a size and a kind, of which "moov" is the index of all sound."""

from collections.abc import Iterator

from datasets.decoding.content import Content
from datasets.decoding.structure import Structure

_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # boxes that files begin with
_MAX_BOXES = 1 << 16


def is_mp4(content: Content) -> bool:
    return content.read(4, 4) in _FIRST


def has_index(content: Content) -> bool:
    return b"moov" in _boxes(content)


def inspect(content: Content) -> Structure:
    """Return the structure of an mp4 file; of several, one behind the other, decoders read the first."""
    joined = list(_boxes(content)).count(b"ftyp") > 1
    return Structure(
        whole=False, end_checked=True, remarks=("is followed by another recording, which is not read",) if joined else ()
    )


def _boxes(content: Content) -> Iterator[bytes]:
    """Yield the kinds of the boxes that are in no other box."""
    position = 0
    for _ in range(_MAX_BOXES):
        if len(header := content.read(position, 16)) < 8:
            return
        yield header[4:8]
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        if size < 8:  # 0: to the end of the file
            return
        position += size
