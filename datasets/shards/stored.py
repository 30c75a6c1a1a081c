"""Where the bytes of a recording lie in a shard, and how to get them."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from datasets.audio import AudioError

# Compression of what is read from the file. A number here is stored in indices of shards: append only.
CODECS = ("none", "snappy_fragments", "snappy", "gzip", "brotli", "zstd", "lz4_raw", "arrow")
MAX_BYTES = 2**30  # of a recording, and of what must be decompressed for it


class Stored(NamedTuple):
    """A recording in a shard: a part of what a range of the file's bytes decompresses to.

    Codec "none": the range itself. "snappy_fragments": some of the 64 KiB pieces that snappy compresses independently.
    "arrow": the encoding is read by pyarrow alone, `offset` is the row group and `skip` the row in it.
    """

    path: Path
    offset: int  # bytes from the beginning of the file
    stored: int  # bytes to read there
    codec: int  # position in CODECS
    size: int  # bytes that they decompress to
    skip: int  # bytes of these before the recording
    length: int  # bytes of the recording

    def read(self) -> bytes:
        """The recording's bytes; fewer where the file ends early. Raises OSError and AudioError."""
        codec = CODECS[self.codec]
        if max(self.stored, self.size, self.length) > MAX_BYTES:
            raise AudioError(
                f"{self} takes {max(self.size, self.length) / 2**30:.1f} GiB; up to {MAX_BYTES / 2**30:.0f} GiB are read"
            )
        if codec == "none":
            return _read_range(self.path, self.offset, self.length)
        try:
            if codec == "arrow":
                recording = _row_group(self.path, self.offset)[self.skip].as_py()
                if recording is None:
                    raise AudioError(f"{self} is not there")
                return recording
            if codec == "snappy_fragments":
                content = decompress("snappy", _varint(self.size) + _read_range(self.path, self.offset, self.stored), self.size)
            else:
                content = _page(self)
        except (OSError, ValueError) as error:  # of pyarrow too
            raise AudioError(f"{self} cannot be read ({error}); fetch {self.path.name} again") from error
        return bytes(content[self.skip : self.skip + self.length])

    def __str__(self) -> str:
        if CODECS[self.codec] == "arrow":
            return f"the recording of row {self.skip} in row group {self.offset} of {self.path}"
        at = f"byte {self.skip} of what is compressed at " if self.codec else ""
        return f"the recording at {at}byte {self.offset} of {self.path}"


def decompress(codec: str, content: bytes | memoryview, size: int) -> memoryview:
    """Decompress to `size` bytes. Raises OSError and ValueError for damaged content."""
    from pyarrow import Codec

    return memoryview(Codec(codec).decompress(content, size)).cast("B")  # unsigned


def _read_range(path: Path, offset: int, length: int) -> bytes:
    # Opening takes 15 us: nothing is kept open that a fork could share, or that thousands of shards could exhaust.
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        return file.read(length)


def _page(stored: Stored) -> memoryview:
    return _decompressed(stored.path, stored.offset, stored.stored, CODECS[stored.codec], stored.size)


@lru_cache(maxsize=1)
def _decompressed(path: Path, offset: int, stored: int, codec: str, size: int) -> memoryview:
    """A page, of which neighbouring clips are often read one after the other."""
    return decompress(codec, _read_range(path, offset, stored), size)


@lru_cache(maxsize=1)
def _row_group(path: Path, row_group: int):  # noqa: ANN202 - a pyarrow.ChunkedArray
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        column = file.read_row_group(row_group, columns=["audio"]).column("audio").combine_chunks()
    return column.field("bytes") if hasattr(column, "field") else column


def _varint(number: int) -> bytes:
    """The length that precedes snappy's data: seven bits a byte, the lowest first."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
