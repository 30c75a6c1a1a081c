"""Files made of chunks, each with a mark and a size: wave, AIFF, CAF, Wave64, and AU, which has a single one.

The size of the sound that the header gives is compared with the bytes that are there.
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

MARKS = (*_LAYOUTS, b".snd")  # that such files begin with

_MAX_CHUNKS = 1 << 16
_UNKNOWN = 0xFFFFFFFF  # a size that is given elsewhere (RF64), or was not known when the header was written
_STREAMED, _NEAR = (0x7FFFFFFF, _UNKNOWN), 1 << 16  # see `is_unknown`
_TRAILER = 1 << 9  # bytes of other kinds behind the only chunk of an AU file
_MP3 = 0x55  # a wave format of which libsndfile prints what it thinks of damaged frames
_PLAIN = (1, 3, 6, 7, 0xFFFE)  # wave formats of samples that are stored one by one
_JOINED = ("is followed by another recording, which is not read",)
_PADDING = 1 << 26  # zeros behind the sound that are ignored, at most
_JUNK = 0.1  # seconds of sound, to which bytes amount that are ignored behind it
_OTHER_FILES = (b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3", b"\xff\xe3", b"\x1aE\xdf\xa3")  # what some begin with
# what 16-bit samples begin with where they are no sound: S/PDIF frames of AC-3 and DTS, and DTS of 16 and 14 bits
_DISGUISED = (b"\x72\xf8\x1f\x4e", b"\xfe\x7f\x01\x80", b"\xff\x1f\x00\xe8")


def inspect(content: Content) -> Structure | None:
    """Return the structure of a file of chunks, None for other files."""
    head = content.read(0, 12)
    if head[:4] == b".snd" and len(head) == 12:
        offset, size = struct.unpack_from(">II", head, 4)
        end = offset + size
        if content.read(end, 4) == b".snd":
            return Structure(view=content.view(0, end), end_checked=True, remarks=_JOINED)
        return Structure(part_there=_share(content, offset, size, _WAVE), whole=content.size - end < _TRAILER)
    layout = _LAYOUTS.get(head[:4])
    if layout is None:
        return None
    found: dict[bytes, bytes] = {}
    for mark, body, size in _chunks(content, layout, layout.start):
        if mark.startswith(layout.sound):
            if layout in (_WAVE, _BIG_WAVE):
                return _inspect_wave(content, layout, body, size, found)
            behind = _marks(content, layout, body + size + -size % layout.alignment)
            whole, remarks = size != 0 and None not in behind, _JOINED if not behind.isdisjoint(_LAYOUTS) else ()
            return Structure(part_there=_share(content, body, size, layout), whole=whole, end_checked=size > 0, remarks=remarks)
        found[mark] = content.read(body, max(0, min(size, 1024)))
    return Structure()


def _chunks(content: Content, layout: _Layout, position: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield mark, position and size of the content of each chunk, from a position on."""
    length = layout.header.size
    for _ in range(_MAX_CHUNKS):
        if len(header := content.read(position, length)) < length:
            return
        mark, size = layout.header.unpack(header)
        size -= layout.counted
        yield mark, position + length, size
        if size < 0:
            return
        position += length + size + -size % layout.alignment


def is_unknown(size: int) -> bool:
    """Whether a size of 32 bits is one that programs write that could not know it in advance."""
    return any(abs(size - streamed) <= _NEAR for streamed in _STREAMED)


def _share(content: Content, body: int, size: int, layout: _Layout) -> float:
    """Return which part is there of the sound that begins at `body` and has so many bytes."""
    if layout.header.size == 8 and is_unknown(size):
        return 1.0
    there = content.size - body
    return there / size if 0 < there < size - 1 else 1.0  # a forgotten padding byte does no harm


def _inspect_wave(content: Content, layout: _Layout, body: int, size: int, found: dict[bytes, bytes]) -> Structure:
    """Return the structure of a wave file whose sound begins at `body`.

    Recorders that died leave a size of 0, programs that write to a pipe one of 0xFFFFFFFF, files above 4 GiB the rest of a division
    by 4 GiB. What is behind the sound must be other chunks; else it is sound.
    """
    order = layout.header.format[0]
    tag, _, _, byte_rate = struct.unpack(order + "HHII", found.get(b"fmt ", b"").ljust(12, b"\0")[:12])
    if size == _UNKNOWN and b"ds64" in found:
        size = struct.unpack("<Q", found[b"ds64"].ljust(16, b"\0")[8:16])[0]
    beginning = content.read(body, 1024)
    if tag in (1, 0xFFFE) and any(mark in beginning for mark in _DISGUISED):
        return Structure(whole=False)
    if tag == _MP3:
        return Structure(whole=False, part_there=_share(content, body, size, layout))
    exact = tag in _PLAIN
    there, end = content.size - body, size + size % 2
    if there <= end or (size and there - end < _JUNK * byte_rate):
        return Structure(end_checked=True, exact=exact, part_there=_share(content, body, size, layout))
    behind = _marks(content, layout, body + end)
    if None not in behind or content.read(body + end, 4).startswith(_OTHER_FILES):
        return Structure(end_checked=True, exact=exact, remarks=() if behind.isdisjoint({None, *_LAYOUTS}) else _JOINED)
    if size and _is_padding(content, body + end):
        return Structure(end_checked=True, exact=exact)
    explained = size == 0 or there > _UNKNOWN or byte_rate == 0
    remark = None if explained else f"has {there / byte_rate:.1f} s of sound, but its header says {size / byte_rate:.1f} s"
    view = View(content, body, content.size, _header(order, found.get(b"fmt ", b""), there))
    return Structure(view=view, end_checked=True, remarks=(remark,) if remark else ())


def _is_padding(content: Content, position: int) -> bool:
    """Whether nothing but zeros follows."""
    if content.size - position > _PADDING:
        return False
    return not any(content.read(at, 1 << 20).strip(b"\0") for at in range(position, content.size, 1 << 20))


def _marks(content: Content, layout: _Layout, position: int) -> set[bytes | None]:
    """Return the marks of the chunks from a position to the end of the file, None among them if other bytes are there."""
    marks = set()
    for mark, at, size in _chunks(content, layout, position):
        is_chunk = (layout is _WAVE64 or all(32 <= byte < 127 for byte in mark)) and 0 <= size <= content.size - at
        marks.add(mark if is_chunk else None)
        if not is_chunk:
            break
    return marks


def _header(order: str, form: bytes, size: int) -> bytes:
    """Return the header of a wave file with so many bytes of sound."""
    form = struct.pack(order + "4sI", b"fmt ", len(form)) + form + bytes(len(form) % 2)
    if size + len(form) + 12 < _UNKNOWN:
        head = struct.pack(order + "4sI4s", b"RIFF" if order == "<" else b"RIFX", size + len(form) + 12, b"WAVE")
        return head + form + struct.pack(order + "4sI", b"data", size)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + len(form) + 48, size, 0, 0)
    return struct.pack("<4sI4s", b"RF64", _UNKNOWN, b"WAVE") + sizes + form + struct.pack("<4sI", b"data", _UNKNOWN)
