"""What the container of a recording says, against what is there: which decoder reads all of it, and how."""

from dataclasses import dataclass

from datasets.decoding.content import Content, View

HEAD_BYTES = 4096  # hold the first frame of an mp3, of at most 1441 bytes


@dataclass(frozen=True)
class Structure:
    """How libsndfile reads a recording."""

    view: View | None = None  # what it reads in place of the file
    has_length: bool = True  # the header's


class EndlessView(View):
    """An mp3 without a frame count, which must be decoded to its end to know its length.

    libsndfile estimates the length from the file's size and the first frame's bit rate, and stops there: early if the rate
    varies. So the size it asks for is answered with more than any change of rate (8 to 320 kbit/s) can make up for.
    """

    _asks_size = False

    def seek(self, offset: int, whence: int = 0) -> int:
        self._asks_size = whence == 2
        return super().seek(offset, whence)

    def tell(self) -> int:
        return super().tell() * (40 if self._asks_size else 1)


def inspect(content: Content) -> Structure:
    head, start = content.read(0, HEAD_BYTES), 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    elif not _is_mp3(head) or _has_frame_count(head):
        return Structure()
    head = content.read(start, HEAD_BYTES)  # other formats can carry a tag as well
    if _is_mp3(head) and not _has_frame_count(head):
        return Structure(EndlessView(content, start, content.size), False)
    return Structure(content.view(start))


def _is_mp3(head: bytes) -> bool:
    """Whether a file begins with the eleven set bits of an MPEG audio frame."""
    return head[:1] == b"\xff" and head[1:2] >= b"\xe0"


def _has_frame_count(head: bytes) -> bool:
    """Whether the first frame holds the number of frames, as encoders write it."""
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))
