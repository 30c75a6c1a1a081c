"""Frame headers of mp3 and AAC, by which a stream of them that has no other header is told from raw samples."""

from __future__ import annotations

_FRAMES = 3  # in a row; chance makes one of 2^11 bytes look like a header
# kbit/s by index, of MPEG-1 and of MPEG-2 and 2.5, layer 3; 0 is a free rate, 15 is forbidden (ISO 11172-3, 2.4.2.3)
_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_HERTZ = (44100, 48000, 32000)  # of MPEG-1; half of it in 2, a quarter in 2.5


def mpeg_kind(head: bytes) -> str | None:
    """Return "mp3" or "aac" where the bytes begin with three frames of it, or with as many as there are."""
    for kind, frame_bytes in (("mp3", _mp3_frame_bytes), ("aac", _adts_frame_bytes)):
        start = found = 0
        while found < _FRAMES and start + 7 <= len(head) and (size := frame_bytes(head[start : start + 7])):
            start += size
            found += 1
        if found == _FRAMES or (found and start >= len(head)):
            return kind
    return None


def _mp3_frame_bytes(head: bytes) -> int:
    """Length of the layer 3 frame that begins so; 0 if none does."""
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3  # version: 0 is 2.5, 2 is 2, 3 is 1; layer: 1 is 3
    rate, hertz, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if head[0] != 0xFF or head[1] < 0xE0 or version == 1 or layer != 1 or rate in (0, 15) or hertz == 3:
        return 0
    if version == 3:
        return 144_000 * _RATES_1[rate] // _HERTZ[hertz] + padding
    return 72_000 * _RATES_2[rate] // (_HERTZ[hertz] // (2 if version == 2 else 4)) + padding


def _adts_frame_bytes(head: bytes) -> int:
    """Length of the AAC frame that begins so (ISO 13818-7, 6.2); 0 if none does."""
    if head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return size if size > 7 else 0
