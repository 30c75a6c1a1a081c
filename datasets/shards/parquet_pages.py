"""Find where each value of a binary column lies in a parquet file, so that one can be read without its row group.

After the format's specification (github.com/apache/parquet-format: README.md, Encodings.md, parquet.thrift) and snappy's
(github.com/google/snappy: format_description.txt). A row group of 10 s clips takes tens of MB, often in a single page:
decompressing it for each clip of a shuffled epoch would take longer than decoding the clip.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from datasets.shards.stored import MAX_BYTES, decompress

_FRAGMENT = 1 << 16  # bytes that snappy compresses at a time, without reference to others
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_PLAIN, _DICTIONARY_ENCODINGS = 0, (2, 8)


class Unsupported(Exception):
    """A column is written in a way that is not read here, although pyarrow may read it."""


class Value(NamedTuple):
    """Where a value is: see `datasets.shards.stored.Stored`, offsets in bytes from the beginning of the column chunk."""

    offset: int
    stored: int
    codec: str
    size: int
    skip: int
    length: int


class _Page(NamedTuple):
    kind: int
    offset: int  # of the levels and values, behind the header
    size: int  # compressed, with the levels
    uncompressed: int
    header: dict[int, Any]  # of its kind


def find_values(chunk: memoryview, codec: str, max_level: int, rows: int) -> Iterator[Value | None]:
    """Yield the place of each row's value, None where it is null.

    `chunk` holds the column chunk of `rows` rows, `codec` its compression in pyarrow's spelling ("none" for none), `max_level` the
    definition level of a value that is there. Repeated columns are not read. Raises Unsupported, and for damage what reading
    nonsense raises: ValueError, LookupError, TypeError, RuntimeError, OSError or struct.error.
    """
    dictionary: list[Value] = []
    for page in _pages(chunk):
        if page.kind == _DICTIONARY_PAGE:
            dictionary = list(_plain(_Body(chunk, page.offset, page.size, page.uncompressed, codec), 0))
            continue
        if page.kind == _DATA_PAGE:
            count, encoding = page.header[1], page.header[2]
            body = _Body(chunk, page.offset, page.size, page.uncompressed, codec)
            start, levels = 0, None
            if max_level:
                start = 4 + int.from_bytes(body.content[:4], "little")
                levels = body.content[4:start]
        elif page.kind == _DATA_PAGE_V2:
            count, encoding = page.header[1], page.header[4]
            level_bytes = page.header[5] + page.header[6]  # levels are not compressed
            levels = chunk[page.offset + page.header[6] : page.offset + level_bytes]
            offset, size, uncompressed = page.offset + level_bytes, page.size - level_bytes, page.uncompressed - level_bytes
            start, body = 0, _Body(chunk, offset, size, uncompressed, codec if page.header.get(7, True) else "none")
        else:
            continue
        if not 0 <= count <= rows:
            raise ValueError(f"a page of {count} of {rows} rows")
        rows -= count
        present = [True] * count
        if max_level:
            present = [level == max_level for level in _hybrid(levels, max_level.bit_length(), count)]
        if encoding == _PLAIN:
            values = _plain(body, start)
        elif encoding in _DICTIONARY_ENCODINGS:
            indices = _hybrid(body.content[start + 1 :], body.content[start], sum(present)) if any(present) else ()
            values = (dictionary[index] for index in indices)
        else:
            raise Unsupported(f"encoding {encoding}")
        for there in present:
            yield next(values) if there else None


def unpacked_sizes(chunk: memoryview) -> Iterator[int]:
    """Yield the bytes that each page of a column decompresses to at most; errors as in `find_values`."""
    return (page.uncompressed for page in _pages(chunk))


class _Body:
    """The values of a page, decompressed to learn their lengths."""

    def __init__(self, chunk: memoryview, offset: int, size: int, uncompressed: int, codec: str) -> None:
        if codec != "none" and uncompressed > MAX_BYTES:
            raise ValueError(f"a page decompresses to {uncompressed} bytes, more than {MAX_BYTES}")
        stored = chunk[offset : offset + size]
        if len(stored) != size:
            raise ValueError("the column ends within a page")
        self.offset, self.size, self.codec = offset, size, codec
        self.content = stored if codec == "none" else decompress(codec, stored, uncompressed) if uncompressed else memoryview(b"")
        self.fragments = _snappy_fragments(stored) if codec == "snappy" else None

    def place(self, position: int, length: int) -> Value:
        """Where the bytes `position` to `position + length` of the values are stored."""
        if self.codec == "none":
            return Value(self.offset + position, length, "none", length, 0, length)
        if self.fragments is None:
            return Value(self.offset, self.size, self.codec, len(self.content), position, length)
        first, last = position // _FRAGMENT, -(-(position + length) // _FRAGMENT)
        start, end = self.fragments[first], self.fragments[last]
        size = min(last * _FRAGMENT, len(self.content)) - first * _FRAGMENT
        return Value(self.offset + start, end - start, "snappy_fragments", size, position - first * _FRAGMENT, length)


def _pages(chunk: memoryview) -> Iterator[_Page]:
    at = 0
    while at < len(chunk):
        header, at = _thrift_struct(chunk, at)
        if header[3] < 0 or header[2] < 0:
            raise ValueError("a page of negative size")
        yield _Page(header[1], at, header[3], header[2], header.get(5) or header.get(7) or header.get(8) or {})
        at += header[3]


def _plain(body: _Body, at: int) -> Iterator[Value]:
    """Values that each follow their length, four bytes."""
    while at < len(body.content):
        (length,) = struct.unpack_from("<I", body.content, at)
        if at + 4 + length > len(body.content):
            raise ValueError("a value reaches beyond its page")
        yield body.place(at + 4, length)
        at += 4 + length


def _hybrid(content: memoryview, width: int, count: int) -> list[int]:
    """Decode `count` numbers of `width` bits in parquet's hybrid of runs and packed bits."""
    numbers: list[int] = []
    at, bytes_wide, mask = 0, (width + 7) // 8, (1 << width) - 1
    while len(numbers) < count:
        header, at = _unsigned(content, at)
        if header & 1:  # groups of eight, packed from the lowest bit on
            size = (header >> 1) * width
            packed = int.from_bytes(content[at : at + size], "little")
            left = min((header >> 1) * 8, count - len(numbers))
            numbers += [packed >> (width * i) & mask for i in range(left)]
            at += size
        else:
            number = int.from_bytes(content[at : at + bytes_wide], "little")
            numbers += [number] * min(header >> 1, count - len(numbers))
            at += bytes_wide
        if header < 2:
            raise ValueError("an empty run")
    return numbers


def _snappy_fragments(content: memoryview) -> list[int] | None:
    """Where in compressed data each 64 KiB of the uncompressed ones begin, and the end; None if they are not independent."""
    size, at = _unsigned(content, 0)
    starts, done, end = [at], 0, len(content)
    fragment = 0  # where the current one begins, uncompressed
    while at < end:
        tag = content[at]
        kind, length = tag & 3, (tag >> 2) + 1
        if kind == 0:
            extra = max(0, length - 60)
            if extra:
                length = int.from_bytes(content[at + 1 : at + 1 + extra], "little") + 1
            at += 1 + extra + length
        else:
            if kind == 1:
                length = (tag >> 2 & 7) + 4
                distance = tag >> 5 << 8 | content[at + 1]
            else:
                distance = int.from_bytes(content[at + 1 : at + (3 if kind == 2 else 5)], "little")
            if distance > done - fragment:
                return None
            at += (0, 2, 3, 5)[kind]
        done += length
        if done >= fragment + _FRAGMENT or done == size:
            if done > fragment + _FRAGMENT:
                return None
            starts.append(at)
            fragment = done
    return starts


def _unsigned(content: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the position behind it."""
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _thrift_struct(content: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """Fields of a struct in Thrift's compact protocol by their number, and the position behind it."""
    fields: dict[int, Any] = {}
    number = 0
    while content[at]:
        head = content[at]
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            zigzag, at = _unsigned(content, at)
            number = zigzag >> 1 ^ -(zigzag & 1)
        fields[number], at = _thrift_value(content, at, head & 15)
    return fields, at + 1


def _thrift_value(content: memoryview, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true and false
        return kind == 1, at
    if kind == 3:  # a byte
        return content[at], at + 1
    if kind in (4, 5, 6):  # integers
        zigzag, at = _unsigned(content, at)
        return zigzag >> 1 ^ -(zigzag & 1), at
    if kind == 7:  # a double
        return None, at + 8
    if kind == 8:  # bytes
        length, at = _unsigned(content, at)
        return None, at + length
    if kind == 12:
        return _thrift_struct(content, at)
    raise ValueError(f"type {kind} in a page's header")
