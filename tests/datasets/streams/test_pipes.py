from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
import soundfile

from datasets import audio
from datasets.audio import AudioError
from datasets.streams.pipes import open_stream
from models.errors import UserError

RNG = np.random.default_rng(0)
TONE = np.sin(2 * np.pi * 440 * np.arange(3 * 48000) / 48000)[:, None] * (0.5, 0.25) + RNG.uniform(-0.05, 0.05, (3 * 48000, 2))
RATE = 48000


class Pipe(io.RawIOBase):
    """A pipe that gives a few bytes at a time and counts them."""

    def __init__(self, content: bytes, piece: int = 777) -> None:
        self._content, self._piece, self.taken = content, piece, 0

    def read1(self, size: int = -1) -> bytes:
        piece = self._content[self.taken : self.taken + min(size, self._piece)]
        self.taken += len(piece)
        return piece


def encoded(format: str, subtype: str | None = None, samples: np.ndarray = TONE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format, subtype=subtype)
    return file.getvalue()


def wav(content: bytes, size: int | None = None, *, riff: bytes = b"RIFF", in_front: bytes = b"", bits: int = 16) -> bytes:
    """A mono wav of 8 kHz whose header says that its samples take `size` bytes."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 1000 * bits, bits // 8, bits)
    size_field = struct.pack("<I", len(content) if size is None else size)
    return riff + size_field + b"WAVE" + in_front + form + b"LIST\5\0\0\0INFOx\0data" + size_field + content


def read(content: bytes, **given: object) -> np.ndarray:
    return np.concatenate(list(open_stream(Pipe(content), **given).blocks))


LOSSLESS = [
    ("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")
]
LOSSLESS += [("WAV", subtype) for subtype in ("ULAW", "ALAW", "IMA_ADPCM")]
LOSSLESS += [("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AU", "PCM_16")]


@pytest.mark.parametrize(("format", "subtype"), LOSSLESS)
def test_a_stream_with_a_header_is_read_as_the_file(format: str, subtype: str) -> None:
    content = encoded(format, subtype)
    stream = open_stream(Pipe(content))
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    assert (stream.rate, stream.channels) == (RATE, 2)
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks)), expected)


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_streams_are_read_as_the_file(format: str, subtype: str) -> None:
    content = encoded(format, subtype)
    stream = open_stream(Pipe(content))
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    found = np.concatenate(list(stream.blocks))
    assert (stream.rate, stream.channels) == (RATE, 2) and 0 <= len(found) - len(expected) < 1152  # mp3: padding of its last frame
    np.testing.assert_allclose(found[: len(expected)], expected, atol=3e-3)


@pytest.mark.parametrize(
    ("format", "subtype", "seconds"), [("WAV", None, 0.1), ("FLAC", None, 1.5), ("OGG", "VORBIS", 1.5), ("MP3", None, 0.6)]
)
def test_samples_come_while_the_stream_is_written(format: str, subtype: str | None, seconds: float) -> None:
    content = encoded(format, subtype, np.tile(TONE, (4, 1)))
    pipe = Pipe(content)
    stream = open_stream(pipe)
    done, lag = 0, 0.0
    for block in stream.blocks:
        lag = max(lag, 12 * pipe.taken / len(content) - done / RATE)
        done += len(block)
    assert lag < seconds


@pytest.mark.parametrize("size", [0, 0x7FFF0000, 0x80000000, 0xFFFFFFFF])
def test_a_wav_whose_writer_did_not_know_its_length(size: int, caplog: pytest.LogCaptureFixture) -> None:
    pcm = RNG.integers(-3000, 3000, 9001).astype("<i2")
    np.testing.assert_array_equal(read(wav(pcm.tobytes(), size))[:, 0], (pcm / 32768).astype(np.float32))
    assert not caplog.records


def test_rf64_of_a_known_and_of_an_unknown_length() -> None:
    pcm = bytes(range(200))
    for size, rest in ((200, b""), (200, b"LIST\2\0\0\0ab"), (2**64 - 1, b""), (0, b"")):
        front = struct.pack("<4sIQQQI", b"ds64", 28, 2**33, size, 0, 0)
        content = wav(pcm, 0xFFFFFFFF, in_front=front, riff=b"RF64") + rest
        assert len(read(content)) == 100


def test_what_follows_the_samples_is_no_sound(caplog: pytest.LogCaptureFixture) -> None:
    pcm = RNG.integers(0, 255, 501).astype(np.uint8).tobytes()
    tagged = wav(pcm, bits=8) + b"\0LIST\3\0\0\0abc\0id3 \2\0\0\0xy"
    assert len(read(tagged)) == 501
    assert len(read(tagged + tagged)) == 1002 and not caplog.records  # two files, one behind the other
    with pytest.raises(AudioError, match="different form"):
        read(tagged + wav(pcm[:500]))


def test_sound_beyond_a_wrong_size_is_kept_and_sound_that_lacks_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    pcm = RNG.integers(-3000, 3000, 8000).astype("<i2").tobytes()
    assert len(read(wav(pcm, 4000))) == 8000 and len(caplog.records) == 1
    caplog.clear()
    assert len(read(wav(pcm, 32000))) == 8000
    assert len(read(wav(pcm, 3 << 30))) == 8000  # a long recording, not one whose length was unknown
    short, long = caplog.records
    assert "1.0 s" in short.message and f"{(3 << 30) / 16000 - 1:.1f} s" in long.message


@pytest.mark.parametrize("cut", range(0, 13))
def test_a_stream_that_breaks_off_keeps_its_whole_frames(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    content = encoded("WAV", "PCM_24", TONE[:1000])
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    whole = 1000 - -(-cut // 6)
    np.testing.assert_array_equal(read(content[: len(content) - cut]), expected[:whole])
    np.testing.assert_array_equal(read(content[44 : len(content) - cut], format="s24le", rate=RATE, channels=2), expected[:whole])
    assert bool(caplog.records) == (cut > 0)


@pytest.mark.parametrize("format", ["FLAC", "MP3", "OGG"])
def test_compressed_streams_that_break_off_keep_what_was_there(format: str, caplog: pytest.LogCaptureFixture) -> None:
    content = encoded(format)
    whole = read(content)
    assert not caplog.records
    part = read(content[: len(content) * 2 // 3])
    np.testing.assert_array_equal(part, whole[: len(part)])
    assert len(part) > RATE * 3 / 3
    if format == "FLAC":  # whose header has the length
        [record] = caplog.records
        assert f"{(len(whole) - len(part)) / RATE:.1f} s are missing" in record.message


@pytest.mark.parametrize(("format", "subtype"), [("FLAC", None), ("MP3", None), ("OGG", "VORBIS")])
def test_gaps_that_damage_leaves_are_reported(format: str, subtype: str | None, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(encoded(format, subtype))
    whole = len(read(bytes(content)))
    assert not caplog.records
    middle = len(content) // 2
    content[middle : middle + 300] = np.random.default_rng(0).integers(0, 255, 300).astype(np.uint8).tobytes()
    missing = (whole - len(read(bytes(content)))) / RATE
    assert 0.02 < missing < 0.5
    [record] = caplog.records
    assert float(record.message.split(": ")[1].split()[0]) == pytest.approx(missing, abs=0.04)


@pytest.mark.parametrize(("format", "subtype"), [("FLAC", None), ("AU", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_streams_behind_each_other_are_one(format: str, subtype: str | None) -> None:
    content = encoded(format, subtype)
    once, twice = read(content), read(content * 2)
    assert len(once) <= len(TONE) + 1152 and abs(len(twice) - 2 * len(once)) < 3 * 1152  # mp3: the frame that holds the length
    np.testing.assert_allclose(twice[-RATE : -RATE // 2], once[-RATE : -RATE // 2], atol=0 if format in ("FLAC", "AU") else 0.05)
    assert format != "AU" or len(twice) == 2 * len(once)


@pytest.mark.parametrize("piece", [9, 777])
@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("FLAC", "PCM_16"), ("AU", "PCM_16")])
def test_further_streams_of_other_rates_and_channels_get_the_first_ones(
    format: str, subtype: str, damage: bool, piece: int
) -> None:
    first, other = encoded(format, subtype, TONE[:RATE]), io.BytesIO()
    soundfile.write(other, TONE[:RATE:2, 0], RATE // 2, format=format, subtype=subtype)
    part = first[: len(first) * 3 // 4] if damage else first  # a song that breaks off
    found = np.concatenate(list(open_stream(Pipe(part + other.getvalue() + first, piece)).blocks))
    assert 3 * RATE - (RATE * 3 // 4 if damage else 0) - 3 < len(found) < 3 * RATE + 3
    middle = found[len(found) - RATE * 3 // 2 :][: RATE // 4]
    np.testing.assert_allclose(middle[:, 0], middle[:, 1], atol=1e-6)  # from one channel to two


def id3(size: int, footer: bytes = b"") -> bytes:
    return b"ID3\4\0" + bytes([16 * bool(footer), 0, 0, size >> 7, size & 127]) + bytes(size) + footer


@pytest.mark.parametrize("format", ["MP3", "FLAC"])
def test_tags_in_front_are_passed_over(format: str) -> None:
    content = encoded(format)
    np.testing.assert_array_equal(read(id3(2000) + id3(10, b"3DI\4\0\x10\0\0\0\n") + content), read(content))


def without_xing(mp3: bytes) -> bytes:
    """Take the first frame away, which holds the length and no sound."""
    return mp3[mp3.index(mp3[:2], 4) :]


def test_an_mp3_without_any_header_is_told_from_samples() -> None:
    content = without_xing(encoded("MP3"))
    for cut in (0, 5, 100):
        stream = open_stream(Pipe(content[: len(content) - cut]))
        assert (stream.kind, stream.rate) == ("mp3", RATE)
    samples = np.resize(np.array([-1, -1025, 144, -1281, 144, 3], "<i2"), 20000)  # ff ff; ff fb 90 00 and ff fa 90 00 begin frames
    for start in range(4):
        stream = open_stream(Pipe(samples[start:].tobytes()))
        assert (stream.kind, stream.rate, stream.channels) == ("raw PCM", 32000, 1)
        np.testing.assert_array_equal(np.concatenate(list(stream.blocks))[:, 0], samples[start:] / np.float32(32768))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("given", [{"rate": 16000}, {"channels": 1}, {"format": "u8"}])
def test_a_header_that_contradicts_what_was_given_is_refused(format: str, given: dict[str, object]) -> None:
    [(what, value)] = given.items()
    with pytest.raises(UserError, match=f"contradicts {what} {value}"):
        open_stream(Pipe(encoded(format)), **given)
    open_stream(Pipe(encoded(format)), rate=RATE, channels=2)


@pytest.mark.parametrize(
    "content",
    [
        b"RIFF",
        b"RIFF\0\0\0\0AVI LIST" + bytes(5000),
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes(5000),
        b"RIFF\0\0\0\0WAVEdata\0\0\0\0" + bytes(5000),
        b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff" + bytes(5000),
        b"fLaC" + bytes(5000),
        b"OggS" + bytes(5000),
        b"ID3\4\0\0\0\0\0\0" + bytes(5000),
        b"\x1aE\xdf\xa3" + bytes(5000),
        b"\0\0\0\x20ftypM4A " + bytes(5000),
        b"caff" + bytes(5000),
        b"FORM\0\0\0\0AIFF" + bytes(5000),
        b"TTA1" + bytes(5000),
        (b"\x0b\x77" + bytes(254)) * 20,
        (b"\x47" + bytes(187)) * 20,
        b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>",
    ],
)
def test_what_begins_as_a_container_is_never_taken_for_samples(content: bytes) -> None:
    with pytest.raises(AudioError):
        read(content, format="s16le")


def test_without_pyav_wav_and_raw_samples_are_read_and_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(read(encoded("WAV"))) == len(TONE) and len(read(bytes(8000))) == 4000
    with pytest.raises(AudioError, match="pip install av"):
        read(encoded("FLAC"))


SHORT = [
    encoded(format, subtype, TONE[:RATE]) for format, subtype in [("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("MP3", None)]
]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_streams_are_read_as_far_as_the_file_or_reported(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(seed)
    for trial in range(20):
        content = bytearray(SHORT[rng.integers(len(SHORT))])
        match trial % 3:
            case 0:
                del content[rng.integers(len(content)) :]
            case 1:
                start = rng.integers(len(content) - 20)
                content[start : start + 20] = rng.bytes(20)
            case 2:
                content += SHORT[rng.integers(len(SHORT))]
        caplog.clear()
        try:
            stream = open_stream(Pipe(bytes(content)))
            seconds = sum(map(len, stream.blocks)) / stream.rate
            waveform, rate = audio.decode(bytes(content), warnings=[])
        except AudioError:
            continue
        assert seconds > len(waveform) / rate - 0.1 or caplog.records, (seed, trial)


def by_pyav(container: str, codec: str) -> bytes:
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(TONE.T, np.float32), "fltp", "stereo")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format.name, "stereo", RATE, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(part))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mpegts", "aac"), ("mpegts", "mp2"), ("ac3", "ac3"), ("eac3", "eac3"), ("avi", "pcm_s16le"), ("adts", "aac")],
)
def test_what_ffmpeg_reads_as_it_comes_is_told_from_samples(container: str, codec: str) -> None:
    content = by_pyav(container, codec)
    stream = open_stream(Pipe(content))
    found = np.concatenate(list(stream.blocks))
    assert (stream.rate, stream.channels) == (RATE, 2) and abs(len(found) - len(TONE)) < 4096
    assert abs(np.square(found).mean() / np.square(TONE).mean() - 1) < 0.1
