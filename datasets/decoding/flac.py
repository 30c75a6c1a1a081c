"""FLAC: the samples that the header announces, against the number in the header of the last frame (RFC 9639)."""

from functools import cache

from datasets.decoding.content import Content
from datasets.decoding.structure import Structure

_TAIL, _LONGEST_TAIL = 1 << 16, 1 << 20  # bytes at the end in which the last frame begins
_BLOCK_SIZES = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}


def inspect(content: Content, start: int) -> Structure:
    """Return the structure of a FLAC stream that begins at `start`, behind ID3 tags."""
    view = content.view(start) if start else None
    info = content.read(start + 8, 34)
    if len(info) < 34 or content.read(start + 4, 1)[0] & 127 != 0:
        return Structure(whole=False, view=view)
    largest_block, largest_frame = int.from_bytes(info[2:4], "big"), int.from_bytes(info[7:10], "big")
    samples = int.from_bytes(info[13:18], "big") & (1 << 36) - 1
    size = min(max(_TAIL, 2 * largest_frame), _LONGEST_TAIL)
    tail = content.read(max(start, content.size - size), size)
    ends_there = samples > 0 and b"fLaC" not in tail[4:] and _has_frame_that_ends_at(tail, samples, largest_block)
    return Structure(whole=ends_there, view=view, announced=samples or None, exact=True)


def _has_frame_that_ends_at(tail: bytes, samples: int, block: int) -> bool:
    """Whether bytes hold the header of a frame whose last sample is the last one of so many."""
    at = tail.rfind(b"\xff")
    while at >= 0:
        if tail[at + 1 : at + 2] in (b"\xf8", b"\xf9") and _end_of_frame(tail[at : at + 16], block) == samples:
            return True
        at = tail.rfind(b"\xff", 0, at)
    return False


def _end_of_frame(header: bytes, block: int) -> int | None:
    """Return the number of samples up to the end of a frame, or None if this is no header of one."""
    if len(header) < 8:
        return None
    first = header[4]
    extra = 0 if first < 0x80 else (first ^ 0xFF).bit_length() and 7 - (first ^ 0xFF).bit_length()
    number = first if extra == 0 else first & (0x3F >> extra)
    for byte in header[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    at, code = 5 + extra, header[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(header[at : at + code - 5], "big") + 1
        at += code - 5
    else:
        size = _BLOCK_SIZES.get(code, 0)
    at += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if len(header) <= at or _crc8(header[:at]) != header[at]:
        return None
    return number + size if header[1] & 1 else number * block + size


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _crc8_table()[crc ^ byte]
    return crc


@cache
def _crc8_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc << 1 ^ 7 if crc & 128 else crc << 1) & 255
        table.append(crc)
    return table
