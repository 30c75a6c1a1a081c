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


def id3v2_picture() -> bytes:
    """Return an ID3v2 tag with a picture whose bytes look like frames of an mp3."""
    picture = b"\xff\xd8\xff\xe0" + b"\xff\xfb\x90\x64" * 2000
    body = bytes(1) + b"image/jpeg\0" + b"\x03\0" + picture
    frame = b"APIC" + struct.pack(">I", len(body)) + bytes(2) + body
    return id3v2(len(frame))[:10] + frame


def id3v2_with_footer(size: int) -> bytes:
    """Return an ID3v2.4 tag with a footer, which its size does not count."""
    tag = b"ID3\x04\0\x10" + id3v2(size)[6:]
    return tag + b"3DI" + tag[3:10]


def lyrics3() -> bytes:
    """Return lyrics as players of the nineties append them, in front of an ID3v1 tag."""
    text = b"LYRICSBEGININD0000210LYR00010la la la la"
    return text + f"{len(text):06d}".encode() + b"LYRICS200"


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


def with_vbri(mp3: bytes, factor: float) -> bytes:
    """Replace the Xing header of an mp3 with one as Fraunhofer's encoders write it, with `factor` times the frames."""
    starts = mp3_frames(mp3)
    header = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(mp3), round((len(starts) - 1) * factor), 0, 1, 2, 1)
    first = mp3[:4] + bytes(32) + header
    return first + bytes(starts[1] - len(first)) + mp3[starts[1] :]


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


def with_flac_length(flac: bytes, factor: float) -> bytes:
    """Multiply the number of samples that a FLAC announces, of fewer than 2^32."""
    return flac[:22] + struct.pack(">I", round(struct.unpack_from(">I", flac, 22)[0] * factor)) + flac[26:]


def flac_with_picture(flac: bytes) -> bytes:
    """Put a picture whose bytes look like frames behind the first block of a FLAC."""
    picture = b"\xff\xf8\xc9\x18" * 3000
    body = struct.pack(">II", 3, 10) + b"image/jpeg" + struct.pack(">IIIIII", 0, 64, 64, 24, 0, len(picture)) + picture
    return flac[:42] + bytes([6]) + len(body).to_bytes(3, "big") + body + flac[42:]


def ogg_pages(ogg: bytes) -> list[bytes]:
    pages, position = [], 0
    while position < len(ogg):
        segments = ogg[position + 26]
        size = 27 + segments + sum(ogg[position + 27 : position + 27 + segments])
        pages.append(ogg[position : position + size])
        position += size
    return pages


def without_end_mark(ogg: bytes) -> bytes:
    """Clear the flag of the last page that says that it is the last, as some programs never set it."""
    *pages, last = ogg_pages(ogg)
    last = last[:5] + bytes([last[5] & ~4]) + last[6:22] + bytes(4) + last[26:]
    checksum = 0
    for byte in last:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return b"".join(pages) + last[:22] + struct.pack("<I", checksum) + last[26:]


def tuned_in(ogg: bytes) -> bytes:
    """Leave out the pages of sound in the first half, as where a broadcast is recorded from its middle on."""
    pages = ogg_pages(ogg)
    headers = sum(struct.unpack_from("<q", page, 6)[0] <= 0 for page in pages)
    return b"".join(pages[:headers] + pages[headers + (len(pages) - headers) // 2 :])


def boxes(content: bytes, start: int = 0, end: int | None = None) -> list[tuple[bytes, int, int]]:
    """Return the boxes of a part of an mp4: type, where it begins, where it ends."""
    found, end = [], len(content) if end is None else end
    while start + 8 <= end:
        size = struct.unpack_from(">I", content, start)[0]
        found.append((content[start + 4 : start + 8], start, start + size))
        start += size
    return found


def index_in_front(mp4: bytes) -> bytes:
    """Move the index of an mp4 in front of the sound, as for the web."""
    parts = {kind: (start, end) for kind, start, end in boxes(mp4)}
    (start, end), (sound, _) = parts[b"moov"], parts[b"mdat"]
    index = bytearray(mp4[start:end])
    place = -1
    while (place := index.find(b"stco", place + 1)) >= 0:
        for entry in range(struct.unpack_from(">I", index, place + 8)[0]):
            at = place + 12 + 4 * entry
            struct.pack_into(">I", index, at, struct.unpack_from(">I", index, at)[0] + len(index))
    first = next(begin for kind, begin, _ in boxes(mp4) if kind != b"ftyp")
    assert sound < start
    return mp4[:first] + bytes(index) + mp4[first:start] + mp4[end:]
