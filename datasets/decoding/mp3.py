"""MPEG audio: the frames that are there, against what the first one says there are.

A file is ID3v2 tags, frames of 4 bytes of header and some data, and tags of other kinds. The first frame may hold no sound but
their number (Xing, Info or VBRI). Files that were joined, cut or recorded from a stream break each of these rules.
"""

import io
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from datasets.decoding.content import Content, View
from datasets.decoding.structure import Structure

_CHUNK = 1 << 20  # bytes read at a time
_GAP = 1 << 22  # bytes that are searched for further frames
_HEAD = 64  # bytes that are searched first: frames begin at once as a rule
_MONO = 0xC0  # byte 3 of a header is this or more for one channel
_RATES = (44100, 48000, 32000)  # Hz, of MPEG-1; MPEG-2 has half of them, MPEG-2.5 a quarter
_BIT_RATES = {  # kbit/s of codes 1 to 14, by (MPEG-1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_BIT_RATES[False, 3] = _BIT_RATES[False, 2]


class EndlessView(View):
    """Frames whose number no header holds; they must be decoded to their end to know their length.

    libsndfile estimates the length from the file's size and the first frame's bit rate, and stops there: early if the rate
    varies. So the size it asks for is answered with more than any change of rate (8 to 320 kbit/s) can make up for.
    """

    _asks_size = False

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._asks_size = whence == io.SEEK_END
        return super().seek(offset, whence)

    def tell(self) -> int:
        return super().tell() * (40 if self._asks_size else 1)


class _Header(NamedTuple):
    length: int  # bytes, of header and data
    samples: int
    rate: int  # Hz
    kind: int  # of version, layer and rate, which do not change in a file


@cache
def _headers() -> dict[int, _Header]:
    """Bytes 1 and 2 of each possible frame header -> what it holds."""
    headers = {}
    for first in range(0xE0, 0x100):
        version, layer = first >> 3 & 3, 4 - (first >> 1 & 3)
        if version == 1 or layer == 4:
            continue
        mpeg1 = version == 3
        samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
        for second in range(0x100):
            bit_rate, rate, padding = second >> 4, second >> 2 & 3, second >> 1 & 1
            if 0 < bit_rate < 15 and rate < 3:
                hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
                slot = 4 if layer == 1 else 1
                length = (samples // 8 * _BIT_RATES[mpeg1, layer][bit_rate - 1] * 1000 // hertz // slot + padding) * slot
                headers[first << 8 | second] = _Header(length, samples, hertz, version << 8 | layer << 4 | rate)
    return headers


def frame_bytes(head: bytes) -> int:
    """Return the length of the frame that begins with these three bytes, 0 if none does."""
    header = _header(head)
    return header.length if header else 0


def _header(head: bytes) -> _Header | None:
    return _headers().get(head[1] << 8 | head[2]) if len(head) >= 3 and head[0] == 0xFF else None


@cache
def _lengths(kind: int) -> dict[bytes, int]:
    """The first 3 bytes of each possible header of a kind -> length of the frame in bytes."""
    return {b"\xff" + key.to_bytes(2, "big"): header.length for key, header in _headers().items() if header.kind == kind}


def id3_bytes(head: bytes) -> int:
    """Return the length of the ID3v2 tag that begins with these bytes, 10 or more; 0 if none does (id3.org, 2.4.0, section 3.1)."""
    if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 127:
        return 0
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 16 else 0)


def skip_id3(content: Content) -> int:
    """Return where the ID3v2 tags at the beginning end."""
    start = 0
    while size := id3_bytes(content.read(start, 10)):
        start += size
    return start


def inspect(content: Content, start: int, search: int, seconds: float | None = None) -> Structure | None:
    """Return the structure of a file whose frames begin in the `search` bytes behind `start`, or None if there are none.

    With `seconds`, only so much is looked at.
    """
    first = _next_frame(content, start, min(content.size, start + search), enough=3)
    if first is None:
        return None
    length, samples, rate, _ = _header(content.read(first, 3))
    announced, trimmed, size = _frame_count(content.read(first, length))
    end = _without_tags(content, first)
    limit = None if seconds is None else round(seconds * rate / samples) + 16
    frames, position, ending = _walk(content, first if announced is None else first + length, end, limit)
    if ending is None:
        position = end
    lead = content.view(start) if start else None
    differs = False  # from what the first frame announces
    if announced:
        differs = (
            frames > announced
            or (ending is not None and frames < announced - 1)
            or (size > 0 and abs(size - (position - first)) > 0.01 * size)
        )
    if first > start or announced == 0 or differs or ending == "broken":
        there_should_be = announced * samples - trimmed if announced else None
        return Structure(whole=False, view=lead, end_checked=True, announced=there_should_be, rate=rate)
    remarks = ("ends within a frame; it may be cut",) if ending == "cut" else ()
    if announced is None:
        return Structure(view=EndlessView(content, first, position), has_length=False, end_checked=True, remarks=remarks)
    if first > 0 or position < 0.99 * content.size:  # libsndfile takes tags for sound, and prints what it thinks of them
        lead = content.view(first, position)
    return Structure(view=lead, end_checked=True, remarks=remarks)


def _frame_count(frame: bytes) -> tuple[int | None, int, int]:
    """Return what the first frame announces: the frames that follow, the samples that are to be cut off, the bytes of all frames.

    None frames: it is sound itself. 0 frames: it is not, but libsndfile does not learn the number from it. 0 bytes: unknown.
    """
    for mark in (b"Xing", b"Info"):
        if 0 < (at := frame.find(mark, 4, 48)):
            flags = frame[at + 7] if len(frame) > at + 7 else 0
            count = int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else 0
            lame = at + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags >> 1 & 4)
            delays = (
                int.from_bytes(frame[lame + 21 : lame + 24], "big") if frame[lame : lame + 4] in (b"LAME", b"Lavc", b"Lavf") else 0
            )
            size = int.from_bytes(frame[at + 8 + 4 * (flags & 1) :][:4], "big") if flags & 2 else 0
            return count, (delays >> 12) + (delays & 0xFFF), size
    return (0, 0, 0) if frame[36:40] == b"VBRI" else (None, 0, 0)


def _without_tags(content: Content, start: int) -> int:
    """Return where the tags at the end begin: ID3v1, Lyrics3v2 and APE."""
    end = content.size
    while end > start:
        tail = content.read(max(start, end - 128), min(128, end - start))
        if tail[:3] == b"TAG" and len(tail) == 128:
            end -= 128
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            end -= 15 + int(tail[-15:-9])
        elif tail[-32:-24] == b"APETAGEX":
            end -= int.from_bytes(tail[-20:-16], "little") + (32 if tail[-9] & 128 else 0)
        else:
            break
    return max(start, end)


def _walk(content: Content, start: int, end: int, limit: int | None) -> tuple[int, int, str | None]:
    """Go from frame to frame, `limit` frames at most; return their number, where they end, and how.

    "end": of the file, but for bytes that are no frames; "cut": within a frame; "broken": other frames follow, behind a gap or of
    another kind; None: at the limit.
    """
    head = content.read(start, 4)
    header = _header(head)
    lengths = _lengths(header.kind) if header else {}
    mono = head[3:4] >= bytes([_MONO])
    frames, base, at, chunk, last = 0, start, 0, b"", -1  # the frame at hand begins at base + at, `last` is where one may begin
    while frames != limit:
        if at > last:
            base, at = base + at, 0
            chunk = content.read(base, min(_CHUNK, max(0, end - base)))
            last = len(chunk) - 4
            if last < 0:
                return frames, base, "cut" if chunk[:1] == b"\xff" else "end"
        length = lengths.get(chunk[at : at + 3])
        if length is None or (chunk[at + 3] >= _MONO) != mono:
            found = _next_frame(content, base + at, min(end, base + at + _GAP))
            return frames, base + at, "end" if found is None and end - base - at <= _GAP else "broken"
        at += length
        frames += 1
        if at > last and base + at > end:
            return frames - 1, base + at - length, "cut"
    return frames, base + at, None


def _next_frame(content: Content, start: int, end: int, enough: int = 2) -> int | None:
    """Return where the next `enough` frames of one kind begin, fewer only if the file ends with them."""
    for position in _find_sync(content, start, end):
        at, kinds = position, set()
        for _ in range(enough):
            if (header := _header(content.read(at, 3))) is None:
                break
            at += header.length
            kinds.add(header.kind)
            if len(kinds) > 1 or at >= content.size:
                break
        else:
            return position
        if len(kinds) == 1 and at == content.size:
            return position
    return None


def _find_sync(content: Content, start: int, end: int) -> Iterator[int]:
    """Yield the positions of bytes that may begin a frame."""
    size = _HEAD
    while start < end:
        size = min(size, end - start)
        chunk = content.read(start, size + 2)
        at = chunk.find(b"\xff", 0, size)
        while at >= 0:
            if at + 2 < len(chunk) and chunk[at + 1] << 8 | chunk[at + 2] in _headers():
                yield start + at
            at = chunk.find(b"\xff", at + 1, size)
        start += size
        size = _CHUNK
