"""datasets.decoding: what becomes of files that are not what their header says. Kinds by kinds: test_any_recording.py."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from datasets import audio
from datasets.audio import AudioError
from datasets.decoding.content import View, opened
from datasets.decoding.reading import read_blocks
from models.errors import UserError
from studies.recordings.encoders import by_soundfile
from studies.recordings.kinds import encode
from studies.recordings.signals import make_sound


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


def low_rate_mp3() -> bytes:
    """An mp3 whose frames take most of their bits from those before them."""
    return audio.encode_mp3(make_sound(4.0, 48000)[:, 0] * np.linspace(1, 0.05, 192000, dtype=np.float32), 48000, compression=0.6)


def test_parts_of_an_mp3_need_no_more_than_what_is_in_front_of_them():
    mp3 = low_rate_mp3()
    whole, rate = audio.decode(mp3)
    for start, end in ((0.01, 1.0), (0.5, 1.5), (1.7, 2.1), (3.0, 4.0)):
        part, _ = audio.decode(mp3, start=start, end=end)
        np.testing.assert_allclose(part, whole[round(start * rate) : round(end * rate)], atol=1e-5)


@pytest.mark.parametrize("size", [1000, 4096, 100_000])
def test_blocks_of_any_size_are_those_of_the_whole(size):
    for content in (low_rate_mp3(), by_soundfile(noise(2, 32000, 3), 32000, "OGG"), encode("m4a, AAC", 2.0)):
        whole = np.concatenate(list(read_blocks(content, "rec", lambda rate: 1 << 22))[1:])
        rate, *blocks = read_blocks(content, "rec", lambda rate: size)
        assert {len(block) for block in blocks[:-1]} <= {size}
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)


def test_a_part_of_an_mp4_is_found_by_its_index():
    content = encode("m4a, AAC", 40.0, 32000, 1)
    whole, rate = audio.decode(content)
    for start in (3.0, 12.3, 38.5):
        part, _ = audio.decode(content, start=start, end=start + 1)
        np.testing.assert_array_equal(part, whole[round(start * rate) : round((start + 1) * rate)])


@pytest.mark.parametrize("kind", ["wav, 16 bit", "m4a, AAC", "aiff", "flac, 16 bit"])
def test_what_follows_a_recording_is_read_or_told(kind):
    first, second = encode(kind, 1.0, 32000, 1), encode(kind, 2.0, 32000, 1, seed=1)
    warnings = []
    waveform, rate = audio.decode(first + second, warnings=warnings, name="rec")
    assert len(waveform) > 2.9 * rate or (len(warnings) == 1 and warnings[0].startswith("rec "))


def test_the_header_of_a_second_au_file_is_no_sound():
    first = by_soundfile(noise(1.0, 8000), 8000, "AU", "PCM_16")
    warnings = []
    waveform, _ = audio.decode(first * 2, warnings=warnings)
    assert len(waveform) == 8000 and len(warnings) == 1


def test_streams_of_two_rates_one_behind_the_other_are_refused():
    first, second = (by_soundfile(noise(1, rate), rate, "OGG", "VORBIS") for rate in (44100, 32000))
    with pytest.raises(AudioError, match="(?s)rec.*32000.*44100"):
        audio.decode(first + second, name="rec")
    assert len(audio.decode(first + first)[0]) == pytest.approx(2 * 44100, abs=500)


@pytest.mark.parametrize("others", [("VORBIS", 2), ("OPUS", 1), ("OPUS", 2)])
def test_streams_of_other_channels_or_codecs_one_behind_the_other_are_read(others):
    first = by_soundfile(noise(1, 48000), 48000, "OGG", "VORBIS")
    second = by_soundfile(noise(1, 48000, others[1]), 48000, "OGG", others[0])
    for content, channels in ((first + second, 1), (second + first, others[1])):
        warnings = []
        rate, *blocks = read_blocks(content, "rec", lambda rate: 5000, warnings=warnings)
        samples = np.concatenate(blocks)
        assert rate == 48000 and samples.shape == (96000, channels) and not warnings
        assert samples[:48000].std() > 0.05 and samples[48000:].std() > 0.05
    part, _ = audio.decode(first + second, start=1.5)
    assert len(part) == 24000


def ogg_without_end() -> bytes:
    """An Ogg whose last page is not marked as the last, as many programs write them."""
    ogg = bytearray(by_soundfile(noise(2, 32000), 32000, "OGG"))
    last = ogg.rfind(b"OggS")
    ogg[last + 5] &= ~4
    ogg[last + 22 : last + 26] = bytes(4)
    crc = 0
    for byte in ogg[last:]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    ogg[last + 22 : last + 26] = crc.to_bytes(4, "little")
    return bytes(ogg)


def test_an_ogg_without_the_mark_of_an_end_is_whole_and_one_that_ends_within_a_page_is_not():
    ogg, warnings = ogg_without_end(), []
    assert len(audio.decode(ogg, strict=True)[0]) == 64000
    audio.decode(ogg[:-10], warnings=warnings)
    assert len(warnings) == 1
    with pytest.raises(AudioError):
        audio.decode(b"OggS" + bytes(5000))


@pytest.mark.parametrize("damage", ["joined", "cut"])
def test_preparation_keeps_only_whole_mp3s_as_they_are(damage):
    mp3 = audio.encode_mp3(noise(2, 32000)[:, 0], 32000)
    damaged = mp3 + mp3 if damage == "joined" else mp3[: len(mp3) // 2]
    warnings = []
    kept = audio.to_mp3(damaged, warnings=warnings)
    assert audio.to_mp3(mp3) == mp3 and kept != damaged
    assert len(audio.decode(kept, strict=True)[0]) == pytest.approx(len(audio.decode(damaged, warnings=[])[0]), abs=2)
    assert len(warnings) == (damage == "cut")


@pytest.mark.parametrize("header", ["mp3", "wav"])
def test_a_long_header_comes_through_an_object_that_is_read_piece_by_piece(header):
    sound = noise(1, 32000)
    if header == "mp3":
        content = b"ID3\x03\0\0" + bytes([0, 127, 0, 0]) + bytes(127 << 14) + audio.encode_mp3(sound[:, 0], 32000)
    else:
        wav = by_soundfile(sound, 32000, "WAV")
        content = wav[:12] + b"JUNK" + (2 << 20).to_bytes(4, "little") + bytes(2 << 20) + wav[12:]
    assert len(audio.decode(io.BytesIO(content))[0]) == 32000


def test_what_begins_like_no_recording_is_refused_before_all_of_it_is_copied():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(AudioError, match="rec "):
        audio.decode(endless, name="rec")
    assert endless.given < 8 << 20


@pytest.mark.parametrize("size", [(1 << 63) - 1, (1 << 64) - 64])
def test_absurd_sizes_are_no_tracebacks(size):
    wave64 = by_soundfile(noise(1, 32000), 32000, "W64", "PCM_16")
    for mark in (b"fmt ", b"data"):
        at = wave64.index(mark) + 16
        try:
            assert len(audio.decode(wave64[:at] + size.to_bytes(8, "little") + wave64[at + 8 :], warnings=[])[0]) <= 32000
        except AudioError as error:
            assert "\n" not in str(error)
    with pytest.raises(AudioError):
        audio.decode(b"\0\0\0\1mdat" + b"\xff" * 8 + bytes(1000))


def test_a_part_behind_the_damage_is_told_by_where_the_sound_ends():
    mp3 = audio.encode_mp3(noise(6, 32000)[:, 0], 32000)
    warnings = []
    with pytest.raises(AudioError, match="ends before 4 s"):
        audio.decode(mp3[: len(mp3) // 2], start=4.0, warnings=warnings, name="rec")
    assert len(warnings) == 1 and "of 6.0 s" in warnings[0] and "4.0" not in warnings[0]


def test_an_mp4_without_its_index_is_called_cut():
    with pytest.raises(AudioError, match="rec .*moov"):
        audio.decode(encode("m4a, AAC", 1.0)[:-3000], name="rec")


@pytest.mark.parametrize("kind", ["flac, 16 bit", "mp3, VBR"])
def test_damage_without_pyav_is_an_error_that_says_how_to_read_it(monkeypatch, kind):
    content = encode(kind, 4.0, 32000, 1)
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(audio.decode(content)[0]) == 128000
    with pytest.raises(AudioError, match="rec .*pip install av"):
        audio.decode(content[: len(content) // 2] + content[len(content) // 2 + 2000 :], name="rec")


def test_a_change_of_channels_is_mixed():
    mono, stereo = (by_soundfile(noise(1, 32000, channels), 32000, "MP3") for channels in (1, 2))
    for content, channels in ((mono + stereo, 1), (stereo + mono, 2)):
        rate, *blocks = read_blocks(content, "rec", lambda rate: 1 << 16)
        samples = np.concatenate(blocks)
        assert rate == 32000 and samples.shape[1] == channels and len(samples) == pytest.approx(64000, abs=4000)
        assert samples[5000:28000].std() > 0.05 and samples[40000:60000].std() > 0.05


def test_a_file_object_is_read_from_its_position(tmp_path):
    wav = by_soundfile(noise(1, 32000), 32000, "WAV")
    (tmp_path / "x").write_bytes(b"12345" + wav)
    with open(tmp_path / "x", "rb") as file:
        file.seek(5)
        np.testing.assert_array_equal(audio.decode(file)[0], audio.decode(wav)[0])
    with open(tmp_path / "x", encoding="latin-1") as file, pytest.raises(ValueError, match="binary"):
        audio.decode(file)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_a_closed_file_object_and_no_temporary_folder_are_told(tmp_path, monkeypatch):
    path = tmp_path / "rec.wav"
    path.write_bytes(encode("wav, 16 bit", 1.0, 32000, 1))
    with path.open("rb") as file:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
        with pytest.raises(AudioError, match=r"rec\.wav cannot be copied.*gone"):
            audio.decode(file)
    with pytest.raises(UserError, match=r"rec\.wav is a file object that is closed"):
        audio.decode(file)


def test_no_descriptor_stays_open(tmp_path):
    wav, pipe = by_soundfile(noise(1, 32000), 32000, "WAV"), tmp_path / "pipe"
    (tmp_path / "x").write_bytes(wav)
    os.mkfifo(pipe)
    before = len(os.listdir("/proc/self/fd"))
    writer = threading.Thread(target=pipe.write_bytes, args=(wav,))
    writer.start()
    for source in (
        tmp_path / "x",
        io.BytesIO(wav),
        pipe,
        tmp_path,
        Path("/dev/null"),
        io.BytesIO(b""),
        encode("m4a, AAC", 0.5)[:-600],
    ):
        try:
            audio.decode(source)
        except AudioError:
            pass
    next(read_blocks(tmp_path / "x", "rec", lambda rate: 1000))  # not read to its end
    writer.join()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_view_is_a_header_and_a_part():
    with opened(bytes(range(100)), "rec") as content:
        view = View(content, 10, 20, b"head")
        assert view.read() == b"head" + bytes(range(10, 20))
        assert view.seek(-3, os.SEEK_END) == 11 and view.read(9) == bytes([17, 18, 19]) and view.unread == 80
        assert view.seek(2) == 2 and view.read(4) == b"ad"
