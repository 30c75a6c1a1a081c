"""RIFF wave files: the size of the sound that the header tells, against the bytes that are there."""

import struct

from datasets.decoding.content import Content, View
from datasets.decoding.structure import Structure

_HEAD = 1 << 12  # bytes read at first
_FORMS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
_UNKNOWN = 0xFFFFFFFF  # a size that is told elsewhere (RF64), or was not known when the header was written
_JUNK = 0.1  # seconds of sound, to which bytes amount that are ignored behind it
# what 16-bit samples begin with where they are no sound: S/PDIF frames of AC-3 and DTS, and DTS of 16 and 14 bits
_OTHER_FILES = (b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3", b"\xff\xe3", b"\x1aE\xdf\xa3")  # what some begin with
_DISGUISED = (b"\x72\xf8\x1f\x4e", b"\xfe\x7f\x01\x80", b"\xff\x1f\x00\xe8")


def inspect(content: Content) -> Structure:
    """Return the structure of a wave file.

    Recorders that died leave a size of 0, programs that write to a pipe one of 0xFFFFFFFF, files above 4 GiB the rest of a division
    by 4 GiB. What is behind the sound must be other chunks; else it is sound.
    """
    head = content.read(0, _HEAD)
    order, position, byte_rate, tag, size64 = _FORMS[head[:4]], 12, 0, 0, None
    while True:
        mark, size = _chunk(content, head, position, order)
        if mark is None:
            return Structure()
        body = position + 8
        if mark == b"fmt ":
            tag, _, _, byte_rate = struct.unpack(order + "HHII", (_read(content, head, body, 12) + bytes(12))[:12])
        elif mark == b"ds64":
            size64 = struct.unpack("<Q", (_read(content, head, body + 8, 8) + bytes(8))[:8])[0]
        elif mark == b"data":
            break
        position = body + size + size % 2
    if size == _UNKNOWN and size64 is not None:
        size = size64
    if tag in (1, 0xFFFE) and any(mark in _read(content, head, body, 1024) for mark in _DISGUISED):
        return Structure(whole=False)
    there = content.size - body
    end = size + size % 2
    behind = there - end
    if behind <= 0 or (size and behind < _JUNK * byte_rate):
        return Structure(known=True, exact=True)
    kinds = _chunks_behind(content, body + end, order)
    if kinds is None and not content.read(body + end, 4).startswith(_OTHER_FILES):
        replaced = {position + 4: b"\xff\xff\xff\xff"} | ({0: b"RIFF"} if size64 is not None else {})
        explained = size == 0 or there > _UNKNOWN or byte_rate == 0
        remark = None if explained else f"has {there / byte_rate:.1f} s of sound, but its header says {size / byte_rate:.1f} s"
        view = View(content, 0, content.size, replaced)
        return Structure(view=view, known=True, remarks=(remark,) if remark else ())
    joined = kinds is None or any(kind in _FORMS for kind in kinds)
    return Structure(known=True, exact=True, remarks=("is followed by another recording, which is not read",) if joined else ())


def _read(content: Content, head: bytes, offset: int, size: int) -> bytes:
    return head[offset : offset + size] if offset + size <= len(head) else content.read(offset, size)


def _chunk(content: Content, head: bytes, position: int, order: str) -> tuple[bytes | None, int]:
    """Return the mark and the size of the chunk at a position; None at the end of the file."""
    header = _read(content, head, position, 8)
    return (header[:4], struct.unpack(order + "I", header[4:])[0]) if len(header) == 8 else (None, 0)


def _chunks_behind(content: Content, position: int, order: str) -> set[bytes] | None:
    """Return the marks of the chunks from a position to the end of the file, or None if other bytes are there."""
    kinds = set()
    while position + 8 <= content.size:
        mark, size = _chunk(content, b"", position, order)
        if not all(32 <= byte < 127 for byte in mark) or position + 8 + size > content.size:
            return None
        kinds.add(mark)
        position += 8 + size + size % 2
    return kinds
