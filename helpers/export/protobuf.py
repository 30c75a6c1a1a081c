"""Serialised protocol buffers, as ONNX files are, read and written without a library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def fields(message: memoryview) -> list[tuple[int, Any]]:
    """Return the fields of a message: their numbers, and integers or bytes."""
    found: list[tuple[int, Any]] = []
    position, end = 0, len(message)
    while position < end:
        key, position = message[position], position + 1
        if key > 127:  # of more than one byte
            key, position = _read_varint(message, position - 1)
        kind = key & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            found.append((key >> 3, value))
            continue
        if kind == 2:
            size, position = message[position], position + 1
            if size > 127:
                size, position = _read_varint(message, position - 1)
        else:
            size = {1: 8, 5: 4}[kind]
        found.append((key >> 3, message[position : position + size]))
        position += size
    return found


def repeated(message: memoryview, number: int) -> Iterator[Any]:
    """Yield the values of the fields of one number."""
    return (value for field, value in fields(message) if field == number)


def field(number: int, value: int | bytes | memoryview) -> bytes:
    """Return a serialised field: an integer, or a text, bytes or message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return b"".join([_varint(number << 3 | 2), _varint(len(value)), value])


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number at a position, seven bits a byte, and the position behind it."""
    value = shift = 0
    while (byte := message[position]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        position += 1
    return value | byte << shift, position + 1


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
