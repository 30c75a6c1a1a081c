"""Ogg: pages of one stream or of several, side by side or one behind the other (RFC 3533)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from datasets.decoding.content import Content
from datasets.decoding.errors import AudioError
from datasets.decoding.structure import Structure

_CHUNK = 1 << 20  # bytes read at a time
_LARGEST = 27 + 255 + 255 * 255  # bytes of a page
_PAGE = struct.Struct("<4sBBqIIIB")  # mark, version, flags, position, stream, number, checksum, entries of the size table
_LATE = 24000  # Hz, at which libsndfile's Opus comes 1/24000 s late
_BEGIN, _END = 2, 4  # flags
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    kind: str  # codec, rate and channels in words
    rate: int  # Hz; 0 where this is no sound that is known here
    delay: int  # samples at the beginning that are dropped
    fast: bool  # libsndfile reads it well
    position: int = 0  # samples up to the end of the last page


def inspect(content: Content, start: int, seconds: float | None = None) -> Structure:
    """Return the structure of pages that begin at `start`, behind ID3 tags. With `seconds`, only so much is looked at.

    libsndfile reads one whole stream of Vorbis or Opus. It stops in silence where another one begins and passes
    over damaged pages.
    Raises AudioError for what no decoder reads whole.
    """
    broken, in_headers, links, begins, next_number = False, False, [], [], {}
    end, ended = start, False
    for position, page in _pages(content, start):
        broken |= position != end
        end = position + len(page)
        ended = page[5] & _END > 0
        _, _, flags, granule, serial, number, _, _ = _PAGE.unpack_from(page)
        if flags & _BEGIN:
            if not in_headers:
                links.append({})
                begins.append(position)
            links[-1][serial] = _Stream(*_describe(page))
            next_number[serial] = number
        in_headers = bool(flags & _BEGIN)
        broken |= number != next_number.get(serial)
        next_number[serial] = number + 1
        if granule >= 0 and links and serial in links[-1]:
            stream = links[-1][serial]
            stream.position = granule
            if seconds is not None and stream.rate and granule > (seconds + 2) * stream.rate:
                return Structure(whole=not broken and len(links) == len(links[0]) == 1 and stream.fast, end_checked=True)
    if not links:
        return Structure(whole=False, end_checked=True)
    sounds = [[stream for stream in link.values() if stream.rate] for link in links]
    if len({stream.rate for link in sounds for stream in link}) > 1:
        names = " and ".join(sorted({stream.kind for link in sounds for stream in link}))
        raise AudioError(f"{names}, one behind the other, which no decoder here reads whole; cut it there")
    behind = content.read(end, 4)
    remarks = ("ends within a page; it may be cut",) if behind and b"OggS".startswith(behind) else ()
    # libsndfile does not find the end of Opus that has no mark of it
    if not broken and len(links) == len(links[0]) == 1 and sounds[0] and sounds[0][0].fast and (ended or sounds[0][0].delay == 0):
        return Structure(end_checked=True, remarks=remarks)
    announced = sum(link[0].position - link[0].delay for link in sounds) if all(len(link) == 1 for link in sounds) else None
    differ = len({tuple(stream.kind for stream in link) for link in sounds}) > 1
    views = tuple(content.view(*ends) for ends in zip(begins, [*begins[1:], content.size], strict=True)) if differ else ()
    return Structure(whole=False, links=views, end_checked=True, announced=announced, remarks=remarks)


def _pages(content: Content, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield where the undamaged pages begin, and their bytes."""
    base, chunk, position = start, b"", start
    while position < content.size:
        if position - base + _LARGEST > len(chunk) and base + len(chunk) < content.size:
            base, chunk = position, content.read(position, min(_CHUNK, content.size - position))
        at = position - base
        size = 0
        if chunk.startswith(b"OggS\0", at) and len(chunk) >= at + 27:
            size = 27 + chunk[at + 26] + sum(chunk[at + 27 : at + 27 + chunk[at + 26]])
        if size and at + size <= len(chunk) and _is_intact(page := chunk[at : at + size]):
            yield position, page
            position += size
            continue
        while (at := chunk.find(b"OggS", at + 1)) < 0 and base + len(chunk) < content.size:
            base += len(chunk) - 3
            chunk, at = content.read(base, _CHUNK), -1
        if at < 0:
            return
        position = base + at


def _is_intact(page: bytes) -> bool:
    """Whether a page has its checksum: a CRC-32 like zlib's, but of mirrored bits, and without its inversions."""
    content = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    crc = zlib.crc32(content, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_MIRRORED) == page[22:26]


def _describe(page: bytes) -> tuple[str, int, int, bool]:
    """Return the first four fields of `_Stream` from the first page of a stream."""
    head = page[27 + page[26] :]
    if head[:7] == b"\x01vorbis" and len(head) >= 16:
        rate = int.from_bytes(head[12:16], "little")
        return f"Vorbis of {rate} Hz in {head[11]} channels", rate, 0, True
    if head[:8] == b"OpusHead" and len(head) >= 16:
        rate = int.from_bytes(head[12:16], "little")  # of the sound before it was encoded
        return f"Opus in {head[9]} channels", 48000, int.from_bytes(head[10:12], "little"), rate != _LATE
    if head[:5] == b"\x7fFLAC" and len(head) >= 30:
        rate, channels = int.from_bytes(head[27:30], "big") >> 4, (head[29] >> 1 & 7) + 1
        return f"FLAC of {rate} Hz in {channels} channels", rate, 0, False
    return "", 0, 0, False
