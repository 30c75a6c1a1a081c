"""datasets.audio against signals whose properties are known beforehand."""

import io
import os
import re
import struct

import numpy as np
import pytest
import soundfile

from datasets import audio
from datasets.audio import AudioError

SUBTYPES = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}


def sine(frequency: float, rate: int, seconds: float = 1.0, amplitude: float = 0.5) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype or SUBTYPES[format])
    return file.getvalue()


def peak_frequency(waveform: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


@pytest.mark.parametrize("format", SUBTYPES)
@pytest.mark.parametrize("kind", ["path", "str", "bytes"])
def test_decode_reads_every_format_from_paths_and_bytes(tmp_path, format, kind):
    original = sine(440, 32000)
    data = encoded(original, 32000, format)
    path = tmp_path / f"clip.{format.lower()}"
    path.write_bytes(data)
    waveform, rate = audio.decode({"path": path, "str": str(path), "bytes": data}[kind])
    assert rate == 32000
    assert waveform.dtype == np.float32 and waveform.shape == original.shape
    assert np.abs(waveform - original)[1000:-1000].max() < (0.05 if format in ("OGG", "MP3") else 1e-4)


def test_format_is_recognised_by_content_not_by_name(tmp_path):
    (tmp_path / "clip.wav").write_bytes(encoded(sine(440, 32000), 32000, "FLAC"))
    assert audio.decode(tmp_path / "clip.wav")[0].shape == (32000,)


@pytest.mark.parametrize("format", SUBTYPES)
def test_bytes_are_read_alike_where_files_in_memory_are_unknown(monkeypatch, format):
    data = encoded(sine(440, 32000), 32000, format)
    expected = audio.decode(data)[0]
    monkeypatch.delattr(os, "memfd_create", raising=False)
    np.testing.assert_array_equal(audio.decode(data)[0], expected)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_no_descriptor_stays_open():
    before = len(os.listdir("/proc/self/fd"))
    for data in (*bad_sources().values(), encoded(sine(440, 32000), 32000, "MP3")):
        try:
            audio.decode(data)
        except AudioError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_channels_are_mixed():
    channels = np.stack([sine(100 * (c + 1), 96000, 0.1, 0.1 * (c + 1)) for c in range(4)], axis=1)
    waveform, rate = audio.decode(encoded(channels, 96000, subtype="FLOAT"))
    assert rate == 96000 and waveform.shape == (9600,)
    np.testing.assert_allclose(waveform, channels.mean(axis=1), atol=1e-6)
    left_only = np.stack([sine(440, 32000), np.zeros(32000, np.float32)], axis=1)
    assert np.abs(audio.decode(encoded(left_only, 32000))[0]).max() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("from_rate", [8000, 22050, 44100, 48000, 96000])
def test_resampling_keeps_pitch_level_and_duration(from_rate):
    waveform = audio.load(encoded(sine(1000, from_rate), from_rate), 32000)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - 32000) <= 1
    assert peak_frequency(waveform, 32000) == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(waveform[1000:-1000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_resampling_removes_what_is_above_the_new_nyquist():
    waveform = audio.resample(sine(20000, 48000), 48000, 32000)  # unfiltered, it would fold to 12 kHz
    assert np.abs(waveform[1000:-1000]).max() < 1e-3


@pytest.mark.parametrize("rates", [(0, 32000), (32000, -1)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match="32000"):
        audio.resample(sine(440, 32000), *rates)


@pytest.mark.parametrize("rate", [32000, 44100])
@pytest.mark.parametrize("format", SUBTYPES)
def test_the_head_alone_is_the_head_of_the_whole(format, rate):
    data = encoded(np.random.default_rng(0).normal(0, 0.1, 5 * rate).astype(np.float32), rate, format)
    whole, head = audio.load(data, 32000), audio.load(data, 32000, seconds=2)
    assert 64000 <= len(head) < 80000 < len(whole)
    np.testing.assert_allclose(head[:64000], whole[:64000], atol=1e-4)


def test_crop_or_pad():
    waveform = np.arange(1, 6, dtype=np.float32)
    np.testing.assert_array_equal(audio.crop_or_pad(waveform, 3), [1, 2, 3])
    np.testing.assert_array_equal(audio.crop_or_pad(waveform, 3, start=1), [2, 3, 4])
    np.testing.assert_array_equal(audio.crop_or_pad(waveform, 3, start=4), [5, 0, 0])
    np.testing.assert_array_equal(audio.crop_or_pad(waveform, 2, start=9), [0, 0])
    padded = audio.crop_or_pad(waveform, 7)
    np.testing.assert_array_equal(padded, [1, 2, 3, 4, 5, 0, 0])
    assert padded.dtype == np.float32
    assert np.shares_memory(audio.crop_or_pad(waveform, 3, 1), waveform)
    for length, start in ((-1, 0), (3, -1)):
        with pytest.raises(ValueError):
            audio.crop_or_pad(waveform, length, start)


def test_encoding_keeps_level_and_spectrum_of_noise_up_to_14_khz():
    noise = np.random.default_rng(0).normal(0, 0.1, 96000).astype(np.float32)
    waveform, rate = audio.decode(audio.encode_mp3(noise, 32000))
    assert rate == 32000 and waveform.shape == noise.shape
    before, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (noise, waveform))
    for low in range(0, 14000, 2000):
        band = slice(low * 3, (low + 2000) * 3)
        assert abs(10 * np.log10(after[band].sum() / before[band].sum())) < 0.3  # dB


@pytest.mark.parametrize(
    ("waveform", "rate"),
    [
        (np.zeros(0, np.float32), 32000),
        (np.zeros((100, 2), np.float32), 32000),
        (np.full(100, np.nan, np.float32), 32000),
        (np.zeros(100, np.float32), 96000),
    ],
    ids=["empty", "stereo", "nan", "rate"],
)
def test_encode_refuses_what_mp3_cannot_hold(waveform, rate):
    with pytest.raises(AudioError):
        audio.encode_mp3(waveform, rate)


def test_to_mp3_keeps_a_mono_mp3_and_converts_the_rest(tmp_path):
    mono = audio.encode_mp3(sine(440, 32000), 32000)
    (tmp_path / "mono.mp3").write_bytes(mono)
    assert audio.to_mp3(tmp_path / "mono.mp3") == mono == audio.to_mp3(mono)
    for other in (
        audio.encode_mp3(sine(440, 44100), 44100),
        encoded(np.stack([sine(440, 32000)] * 2, axis=1), 32000, "MP3"),
        encoded(sine(440, 32000), 32000),
    ):
        converted = audio.to_mp3(other)
        info = soundfile.info(io.BytesIO(converted))
        assert (info.format, info.samplerate, info.channels) == ("MP3", 32000, 1)
        assert peak_frequency(audio.decode(converted)[0], 32000) == pytest.approx(440, abs=1)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        audio.decode(tmp_path / "nowhere.wav")


def bad_sources() -> dict[str, bytes]:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    spoilt = noise.copy()
    spoilt[100] = np.inf
    wav = encoded(noise, 32000)
    return {
        "empty.wav": b"",
        "text.wav": b"this is not audio\n" * 50,
        "text.raw": b"this is not audio\n" * 50,
        "random.mp3": np.random.default_rng(0).bytes(5000),
        "zeros.mp3": bytes(5000),
        "no_samples.wav": encoded(noise[:0], 32000),
        "nan.wav": encoded(np.full(100, np.nan, np.float32), 32000, subtype="FLOAT"),
        "inf.wav": encoded(spoilt, 32000, subtype="FLOAT"),
        "header_only.wav": wav[:20],
        "header_only.ogg": encoded(noise, 32000, "OGG")[:60],
    }


@pytest.mark.parametrize("file_name", bad_sources())
def test_bad_sources_give_one_line_that_names_them(tmp_path, file_name):
    data = bad_sources()[file_name]
    path = tmp_path / file_name
    path.write_bytes(data)
    for call in (lambda: audio.decode(path), lambda: audio.decode(data, name=file_name), lambda: audio.to_mp3(path)):
        with pytest.raises(AudioError, match=file_name) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3", "AIFF"])
def test_a_cut_recording_is_read_up_to_the_cut_with_a_warning_unless_strict(caplog, tmp_path, format):
    noise = np.random.default_rng(0).normal(0, 0.1, 96000).astype(np.float32)
    data = encoded(noise, 32000, format, "PCM_16" if format == "AIFF" else None)
    path = tmp_path / "rec"
    path.write_bytes(data[: len(data) // 2])
    whole = audio.decode(data)[0]
    for source in (path, data[: len(data) // 2]):
        warnings = []
        waveform, rate = audio.decode(source, warnings=warnings, name="rec")
        assert 40000 < len(waveform) < 52000 and rate == 32000
        np.testing.assert_allclose(waveform[:40000], whole[:40000], atol=1e-4)
        assert len(warnings) == 1 and warnings[0].startswith("rec ") and "of 3.0 s" in warnings[0]
        assert not caplog.records
        with pytest.raises(AudioError, match=re.escape(warnings[0])):
            audio.decode(source, strict=True, name="rec")
        assert len(audio.decode(source, end=1.0, strict=True)[0]) == 32000  # what is asked for is there
        measured = []
        assert audio.measure(source, check_end=True, warnings=measured, name="rec") == (len(waveform), 32000)
        assert measured == warnings
    audio.decode(path)
    assert "of 3.0 s" in caplog.text


@pytest.mark.parametrize("kind", ["path", "bytes", "object"])
@pytest.mark.parametrize(
    ("format", "subtype"), [*SUBTYPES.items(), ("OGG", "OPUS"), ("WAV", "FLOAT"), ("AIFF", "PCM_24"), ("AU", "ULAW")]
)
def test_a_part_is_that_part_of_the_whole(tmp_path, format, subtype, kind):
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * 48000, 2)).astype(np.float32)
    data = encoded(noise, 48000, format, subtype)
    (tmp_path / "rec").write_bytes(data)
    source = {"path": lambda: tmp_path / "rec", "bytes": lambda: data, "object": lambda: io.BytesIO(data)}[kind]
    whole = audio.decode(data)[0]
    for start, end in ((0.0, 1.0), (1.5, None), (1.7, 2.2), (2.9, 99.0)):
        part, _ = audio.decode(source(), start=start, end=end)
        expected = whole[round(start * 48000) : None if end is None else round(end * 48000)]
        np.testing.assert_allclose(part, expected, atol=2e-3 if subtype == "OPUS" else 1e-5)
    for start, end in ((3.5, None), (-1.0, None), (2.0, 1.0), (1.0, 1.0), (float("nan"), None)):
        with pytest.raises(AudioError):
            audio.decode(source(), start=start, end=end)


def test_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(AudioError, match=tmp_path.name):
        audio.decode(tmp_path)


@pytest.mark.parametrize("announced", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_wav_without_a_length_is_whole(announced):
    data = bytearray(encoded(sine(440, 32000), 32000))
    position = data.index(b"data") + 4
    data[position : position + 4] = struct.pack("<I", announced)
    assert audio.decode(bytes(data))[0].shape == (32000,)


def without_length_frame(mp3: bytes) -> bytes:
    """Remove the first frame, in which LAME stores the length; many encoders do not write it."""
    first, second = (match.start() for match in list(re.finditer(re.escape(mp3[:2]), mp3))[:2])
    assert b"Info" in mp3[first:second] or b"Xing" in mp3[first:second]
    return mp3[second:]


def test_a_large_id3_tag_is_not_taken_for_sound():
    bare = without_length_frame(encoded(sine(440, 32000), 32000, "MP3"))
    tag = b"ID3\x04\x00\x00" + bytes([0, 3, 64, 0]) + bytes(3 * 2**14 + 64 * 2**7)
    whole = encoded(sine(440, 32000), 32000, "MP3")
    for mp3 in (bare, whole):
        plain, tagged = audio.decode(mp3)[0], audio.decode(tag + mp3)[0]
        np.testing.assert_array_equal(plain, tagged)


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_of_varying_rate_without_a_frame_count_is_read_to_its_end(tmp_path, loud_first):
    parts = [np.random.default_rng(0).uniform(-0.9, 0.9, 160000), 0.001 * np.sin(np.arange(160000) / 10)]
    mp3 = audio.encode_mp3(np.concatenate(parts if loud_first else parts[::-1]).astype(np.float32), 32000, compression=0.3)
    (tmp_path / "x.mp3").write_bytes(without_length_frame(mp3))
    for source in (without_length_frame(mp3), tmp_path / "x.mp3"):
        waveform, rate = audio.decode(source)
        assert rate == 32000 and abs(len(waveform) - 320000) <= 2 * 1152
        loud, quiet = (waveform[:150000], waveform[170000:]) if loud_first else (waveform[170000:318000], waveform[:150000])
        assert loud.std() > 0.3 and quiet.std() < 0.01


def test_a_flac_with_an_id3_tag_is_read_and_its_truncation_noticed():
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(128)
    flac = encoded(sine(440, 32000, seconds=3), 32000, "FLAC")
    assert len(audio.decode(tag + flac)[0]) == 96000
    with pytest.raises(AudioError):
        audio.decode(tag + flac[: len(flac) // 2], strict=True)


def test_measuring_gives_the_length_of_decoding_without_decoding(monkeypatch, tmp_path):
    expected = {}
    for format, subtype in (*SUBTYPES.items(), ("OGG", "OPUS")):
        data = encoded(sine(440, 48000, 1.5), 48000, format, subtype)
        expected[data] = (len(audio.decode(data)[0]), 48000)
    (tmp_path / "a").write_bytes(data)
    monkeypatch.setattr(audio, "decode", None)
    for data, measured in expected.items():
        for check_end in (False, True):
            assert audio.measure(data, check_end=check_end) == measured == (72000, 48000)
    assert audio.measure(tmp_path / "a") == (72000, 48000)


def test_measuring_decodes_an_mp3_without_a_frame_count():
    marked = encoded(sine(440, 32000, 3.0), 32000, "MP3")
    unmarked = marked.replace(b"Xing", b"none").replace(b"Info", b"none")
    assert unmarked != marked and audio.measure(unmarked, check_end=True) == (len(audio.decode(unmarked)[0]), 32000)


def test_what_cannot_be_decoded_cannot_be_measured(tmp_path):
    for name, data in bad_sources().items():
        if name not in ("nan.wav", "inf.wav"):  # which only decoding can see
            with pytest.raises(AudioError):
                audio.measure(data, check_end=True)
    with pytest.raises(FileNotFoundError):
        audio.measure(tmp_path / "nowhere.wav")


@pytest.mark.parametrize("rates", [(44100, 32000), (32000, 44100), (22050, 16000), (48000, 32000), (32000, 32000)])
def test_resampled_lengths_are_upper_bounds(rates):
    for samples in (1, 2, 441, 1000, 4409, 31999):
        assert audio.resampled_length(samples, *rates) - len(audio.resample(np.zeros(samples, np.float32), *rates)) in (0, 1)
