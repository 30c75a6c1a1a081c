"""Files made of chunks, each with a mark and a size: wave, AIFF, CAF, Wave64, and AU, which has a single one.

The size of the sound that the header tells is compared with the bytes that are there.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from datasets.decoding.content import Content, View
from datasets.decoding.structure import Structure


@dataclass(frozen=True)
class _Layout:
    header: struct.Struct  # mark and size
    start: int  # of the first chunk
    sound: bytes  # beginning of the mark of the chunk that holds it
    alignment: int = 2  # bytes
    counted: int = 0  # bytes of the header that the size includes


_WAVE, _BIG_WAVE = (_Layout(struct.Struct(order + "4sI"), 12, b"data") for order in "<>")
_AIFF = _Layout(struct.Struct(">4sI"), 12, b"SSND")
_CAF = _Layout(struct.Struct(">4sq"), 8, b"data", alignment=1)
_WAVE64 = _Layout(struct.Struct("<16sQ"), 40, b"data", alignment=8, counted=24)
_LAYOUTS = {b"RIFF": _WAVE, b"RF64": _WAVE, b"BW64": _WAVE, b"RIFX": _BIG_WAVE, b"FORM": _AIFF, b"caff": _CAF, b"riff": _WAVE64}

_HEAD = 1 << 12  # bytes read at first
_UNKNOWN = 0xFFFFFFFF  # a size that is told elsewhere (RF64), or was not known when the header was written
_STREAMED = 0x7FFF0000  # bytes; sizes from here on are written by programs that could not know the length in advance
_PLAIN = (1, 3, 6, 7, 0xFFFE)  # wave formats of samples that are stored one by one
_JUNK = 0.1  # seconds of sound, to which bytes amount that are ignored behind it
_OTHER_FILES = (b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3", b"\xff\xe3", b"\x1aE\xdf\xa3")  # what some begin with
# what 16-bit samples begin with where they are no sound: S/PDIF frames of AC-3 and DTS, and DTS of 16 and 14 bits
_DISGUISED = (b"\x72\xf8\x1f\x4e", b"\xfe\x7f\x01\x80", b"\xff\x1f\x00\xe8")


def inspect(content: Content) -> Structure | None:
    """Return the structure of a file of chunks, None for other files."""
    head = content.read(0, _HEAD)
    if head[:4] == b".snd" and len(head) >= 12:
        offset, size = struct.unpack_from(">II", head, 4)
        return Structure(share=_share(content, offset, size))
    layout = _LAYOUTS.get(head[:4])
    if layout is None:
        return None
    found: dict[bytes, bytes] = {}
    for mark, body, size in _chunks(content, layout, layout.start, head):
        if mark.startswith(layout.sound):
            if layout in (_WAVE, _BIG_WAVE):
                return _inspect_wave(content, layout, body, size, found)
            return Structure(share=_share(content, body, size))
        found[mark] = content.read(body, 16)
    return Structure()


def _chunks(content: Content, layout: _Layout, position: int, head: bytes = b"") -> Iterator[tuple[bytes, int, int]]:
    """Yield mark, position and size of the content of each chunk, from a position on."""
    length = layout.header.size
    while (
        len(header := head[position : position + length] if position + length <= len(head) else content.read(position, length))
        == length
    ):
        mark, size = layout.header.unpack(header)
        size -= layout.counted
        yield mark, position + length, size
        if size < 0:
            return
        position += length + size + -size % layout.alignment


def _share(content: Content, body: int, size: int) -> float:
    """Return which part is there of the sound that begins at `body` and has so many bytes."""
    there = content.size - body
    return there / size if 0 < there < size - 1 and size < _STREAMED else 1.0  # a forgotten padding byte does no harm


def _inspect_wave(content: Content, layout: _Layout, body: int, size: int, found: dict[bytes, bytes]) -> Structure:
    """Return the structure of a wave file whose sound begins at `body`.

    Recorders that died leave a size of 0, programs that write to a pipe one of 0xFFFFFFFF, files above 4 GiB the rest of a division
    by 4 GiB. What is behind the sound must be other chunks; else it is sound.
    """
    order = layout.header.format[0]
    tag, _, _, byte_rate = struct.unpack(order + "HHII", found.get(b"fmt ", b"").ljust(12, b"\0")[:12])
    if size == _UNKNOWN and b"ds64" in found:
        size = struct.unpack("<Q", found[b"ds64"].ljust(16, b"\0")[8:])[0]
    if tag in (1, 0xFFFE) and any(mark in content.read(body, 1024) for mark in _DISGUISED):
        return Structure(whole=False)
    exact = tag in _PLAIN
    there, end = content.size - body, size + size % 2
    if there <= end or (size and there - end < _JUNK * byte_rate):
        return Structure(known=True, exact=exact, share=_share(content, body, size))
    behind = {
        mark if _is_mark(mark) and at + length <= content.size else None
        for mark, at, length in _chunks(content, layout, body + end)
    }
    if None not in behind or content.read(body + end, 4).startswith(_OTHER_FILES):
        joined = not behind.isdisjoint({None, *_LAYOUTS})
        return Structure(
            known=True, exact=exact, remarks=("is followed by another recording, which is not read",) if joined else ()
        )
    replaced = {body - 4: b"\xff\xff\xff\xff"} | ({0: b"RIFF"} if b"ds64" in found else {})
    explained = size == 0 or there > _UNKNOWN or byte_rate == 0
    remark = None if explained else f"has {there / byte_rate:.1f} s of sound, but its header says {size / byte_rate:.1f} s"
    return Structure(view=View(content, 0, content.size, replaced), known=True, remarks=(remark,) if remark else ())


def _is_mark(mark: bytes) -> bool:
    return all(32 <= byte < 127 for byte in mark)
