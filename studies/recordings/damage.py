"""What happens to recordings: cuts, overwritten bytes, tags, joints, headers that say less than there is."""

from __future__ import annotations

import struct

import numpy as np


def overwritten(content: bytes, position: int, seed: int, count: int = 20) -> bytes:
    """Replace `count` bytes from `position` on with random ones."""
    noise = np.random.default_rng(seed).bytes(count)
    return (content[:position] + noise + content[position + count :])[: len(content)]


def id3v2(size: int) -> bytes:
    """Return an ID3v2 tag with `size` bytes of padding."""
    return b"ID3\x03\0\0" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def id3v1() -> bytes:
    return b"TAG" + b"title".ljust(125, b"\0")


def ape_tag() -> bytes:
    """Return an APE tag of version 2 with one entry and a footer, as players append it."""
    item = struct.pack("<II", 5, 0) + b"Title\0" + b"sound"
    return item + b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, 0) + bytes(8)


def mp3_frames(content: bytes) -> list[int]:
    """Return where the frames of an mp3 of layer 3, without tags in front, begin."""
    kbits = {
        1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }
    starts, position = [], 0
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] >= 0xE0:
        version = (content[position + 1] >> 3) & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
        rate = (44100, 48000, 32000)[(content[position + 2] >> 2) & 3] >> {3: 0, 2: 1, 0: 2}[version]
        bits = kbits[1 if version == 3 else 2][content[position + 2] >> 4] * 1000
        starts.append(position)
        position += (144 if version == 3 else 72) * bits // rate + ((content[position + 2] >> 1) & 1)
    return starts


def without_length_frame(mp3: bytes) -> bytes:
    """Remove the first frame of an mp3, in which encoders store how long it is."""
    return mp3[mp3_frames(mp3)[1] :]


def with_frame_count(mp3: bytes, factor: float) -> bytes:
    """Multiply the number of frames that the first frame of an mp3 announces."""
    mark = max(mp3[:400].find(b"Xing"), mp3[:400].find(b"Info"))
    frames = struct.unpack_from(">I", mp3, mark + 8)[0]
    return mp3[: mark + 8] + struct.pack(">I", round(frames * factor)) + mp3[mark + 12 :]


def without_frame_count(mp3: bytes) -> bytes:
    """Clear the flag that says that the first frame of an mp3 holds the number of frames, and the number."""
    mark = max(mp3[:400].find(b"Xing"), mp3[:400].find(b"Info"))
    return mp3[: mark + 7] + bytes([mp3[mark + 7] & ~1]) + mp3[mark + 12 :]


def with_wav_sizes(wav: bytes, riff: int, data: int) -> bytes:
    """Write other sizes into the header of a wav."""
    place = wav.index(b"data") + 4
    return wav[:4] + struct.pack("<I", riff) + wav[8:place] + struct.pack("<I", data) + wav[place + 4 :]


def with_chunks(wav: bytes, size: int = 1001) -> bytes:
    """Put chunks of an odd size, padded as they should be, before and behind the samples of a wav."""
    place = wav.index(b"data")
    chunk = b"LIST" + struct.pack("<I", size) + bytes(size + size % 2)
    content = wav[8:place] + chunk + wav[place:] + chunk
    return b"RIFF" + struct.pack("<I", len(content)) + content


def of_unknown_length(flac: bytes) -> bytes:
    """Clear the number of samples and the checksum of them, as where a FLAC is written into a pipe."""
    content = bytearray(flac)
    content[21] &= 0xF0  # the lowest bits of this byte and the next four: the number of samples
    content[22:26] = bytes(4)
    content[26:42] = bytes(16)
    return bytes(content)
