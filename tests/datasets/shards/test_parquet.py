"""Parquet: what is read at random is what pyarrow reads, for every way in which a column may be written."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.shards import parquet, parquet_pages
from datasets.shards.clips import ShardError
from datasets.shards.parquet import read_parquet
from datasets.shards.stored import CODECS
from models.errors import UserError

SPEECH = "/m/09x0r"


def contents(count: int = 24) -> list[bytes | None]:
    """Incompressible, compressible and repeated values of all lengths around snappy's 64 KiB, empty ones, and nulls."""
    generator = np.random.default_rng(0)
    kinds = (
        lambda size: generator.bytes(size),
        lambda size: bytes(size),
        lambda size: generator.bytes(size // 50) * 50,
        lambda size: (np.arange(size) // 7).astype(np.uint8).tobytes(),
    )
    sizes = [0, 1, 65535, 65536, 65537, *generator.integers(0, 150_000, count)]
    values: list[bytes | None] = [kinds[number % 4](int(size)) for number, size in enumerate(sizes[:count])]
    values[3], values[9], values[17] = None, None, values[16]
    return values


VALUES = contents()


def write(path, values=VALUES, **options):
    audio = [{"bytes": value, "path": f"{number}.flac"} for number, value in enumerate(values)]
    audio[9] = None  # VALUES[3] is a null in a struct that is there
    columns = {"video_id": [f"clip{number}" for number in range(len(values))], "audio": audio, "labels": [[SPEECH]] * len(values)}
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path) -> list[bytes | None]:
    return [clip.stored and clip.stored.read() for clip in read_parquet(path)]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_values_are_those_of_pyarrow(tmp_path, compression):
    for dictionary, version, page, group in itertools.product((True, False), ("1.0", "2.0"), (1000, 2**20), (7, 1000)):
        options = {"use_dictionary": dictionary, "data_page_version": version, "data_page_size": page, "row_group_size": group}
        level = {"compression_level": 1} if compression in ("gzip", "brotli") else {}
        path = write(tmp_path / "a.parquet", compression=compression, **options, **level)
        assert read(path) == VALUES, options
        if compression in ("none", "snappy"):
            used = {CODECS[clip.stored.codec] for clip in read_parquet(path) if clip.stored}
            assert used == {"none" if compression == "none" else "snappy_fragments"}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_many_rows_with_nulls_and_repetitions(tmp_path, version):
    generator = np.random.default_rng(0)
    words = [generator.bytes(int(size)) for size in generator.integers(0, 300, 900)]
    values = [words[number] if generator.random() < 0.8 else None for number in generator.integers(0, 900, 3000)]
    values[500:1000] = [words[0]] * 500  # runs, besides packed bits
    values[1500:1800] = [None] * 300
    values[9] = None
    for size in (None, 50_000):  # of the dictionary, behind which come plain pages
        options = {"dictionary_pagesize_limit": size} if size else {}
        assert read(write(tmp_path / "a.parquet", values, data_page_version=version, data_page_size=5000, **options)) == values


def test_a_value_is_read_without_its_row_group(tmp_path):
    values = [np.random.default_rng(number).bytes(100_000) for number in range(20)]
    clips = list(read_parquet(write(tmp_path / "a.parquet", values)))  # snappy, one page
    assert max(clip.stored.stored for clip in clips if clip.stored) < 100_000 + 2 * 2**16 + 100


def test_snappy_that_refers_beyond_64_kib_is_not_read_in_pieces():
    literal = bytes([62 << 2]) + (65535).to_bytes(3, "little") + np.random.default_rng(0).bytes(65536)
    copies = [bytes([2 | 63 << 2]) + distance.to_bytes(2, "little") for distance in (65535, 64)]  # 64 bytes each, from before
    length = b"\x80\x81\x04"  # 65536 + 2 * 64
    stream = length + literal + copies[0] + copies[1]
    assert len(pa.Codec("snappy").decompress(stream, 65664)) == 65664  # it is snappy all the same
    assert parquet_pages._snappy_fragments(memoryview(stream)) is None
    whole = b"\xf8\x80\x04" + literal + (bytes([59 << 2]) + bytes(60)) * 2  # 65536 + 2 * 60
    assert parquet_pages._snappy_fragments(memoryview(whole)) == [3, 3 + len(literal), len(whole)]


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_other_encodings_are_left_to_pyarrow(tmp_path, encoding):
    path = write(tmp_path / "a.parquet", VALUES[10:], use_dictionary=False, column_encoding={"audio.bytes": encoding})
    clips = list(read_parquet(path))
    assert [clip.stored.read() for number, clip in enumerate(clips) if number != 9] == [
        value for number, value in enumerate(VALUES[10:]) if number != 9
    ]


def test_keys_and_columns(tmp_path):
    audio = [{"bytes": b"a", "path": "dir/--aE2O5G5WE.flac"}]
    pq.write_table(pa.table({"audio": audio, "other": [1]}), tmp_path / "a.parquet")
    [clip] = read_parquet(tmp_path / "a.parquet")
    assert clip.key == "--aE2O5G5WE"
    pq.write_table(pa.table({"ytid": ["--aE2O5G5WE"], "audio": [b"abc"]}), tmp_path / "b.parquet")
    [clip] = read_parquet(tmp_path / "b.parquet")
    assert clip.key == "--aE2O5G5WE" and clip.stored.read() == b"abc"
    pq.write_table(pa.table({"video_id": ["a"], "sound": [b"abc"]}), tmp_path / "c.parquet")
    with pytest.raises(ShardError, match="video_id, sound"):
        list(read_parquet(tmp_path / "c.parquet"))


@pytest.mark.parametrize(("limit", "value"), [("MAX_LABEL_BYTES", 200), ("MAX_BYTES", 20_000), ("MAX_ROWS", 23)])
def test_columns_are_decompressed_up_to_a_size(tmp_path, monkeypatch, limit, value):
    """Those that pyarrow decompresses: labels, names, and recordings in encodings that are not read here."""
    path = write(tmp_path / "a.parquet", use_dictionary=False, column_encoding={"audio.bytes": "DELTA_LENGTH_BYTE_ARRAY"})
    assert len(list(read_parquet(path))) == 24
    monkeypatch.setattr(parquet, limit, value)
    with pytest.raises(ShardError, match=f"a.parquet.*more than {value}"):
        list(read_parquet(path))


def test_damage_is_one_error(tmp_path):
    whole = write(tmp_path / "whole.parquet", compression="snappy").read_bytes()
    damaged = tmp_path / "damaged.parquet"
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(40):
        content = bytearray(whole)
        at = int(generator.integers(len(content)))
        content[at : at + 20] = generator.bytes(20)
        damaged.write_bytes(content if generator.random() < 0.7 else content[:at])
        try:
            read(damaged)
            outcomes.add("read")
        except Exception as error:
            assert isinstance(error, UserError) and str(damaged) in str(error), repr(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
