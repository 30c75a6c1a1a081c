"""Recordings of every kind against FFmpeg's decoding of them: equal, or an error or a warning."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from datasets import audio
from datasets.audio import AudioError
from datasets.sound import open_sound
from studies.recordings import damage, kinds
from studies.recordings.encoders import by_pyav, by_soundfile
from studies.recordings.kinds import FORMATS, Recording, encode
from studies.recordings.reading import LOST, WARNED, WHOLE, correlation, judge, read
from studies.recordings.reference import Found, full_decoding
from studies.recordings.signals import make_sound

SECONDS = 0.5
UNUSUAL = {f"{one.kind}, {one.details}": one for one in kinds.unusual(SECONDS)}
# What no decoder reads whole; it must not be read in part without a word.
NOT_READABLE = {
    "ogg, chained Vorbis, two rates",
    "ogg, chained, Vorbis and Opus",
    "wav, RF64 without sizes",
    "aiff, no samples announced",
    "w64, size 0",
}
# Of which a warning is the right answer: a header says something else than what is there, or the first half is missing.
MAY_WARN = {
    "mp3, Xing says three times",
    "wav, sizes of the first half",
    "ogg, recorded from the middle on, Vorbis",
    "ogg, recorded from the middle on, Opus",
}
WAYS = ("wav, 16 bit", "flac, streamed", "ogg, Vorbis", "ogg, Opus", "mp3, VBR", "m4a, AAC", "webm, Opus and VP8", "wma", "amr")


@pytest.fixture(autouse=True)
def quiet_reference() -> None:
    av.logging.set_level(av.logging.PANIC)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_recording_of_every_format_is_read_as_ffmpeg_decodes_it(kind: str) -> None:
    content = encode(kind, SECONDS)
    verdict = judge(read(content), content, seconds=SECONDS, same_sound=True)
    assert verdict.outcome == WHOLE, verdict.reason


@pytest.mark.parametrize(
    ("kind", "channels"), [(kind, count) for kind, format in FORMATS.items() for count in format.channels if count > 2]
)
def test_surround_sound_is_read_as_ffmpeg_decodes_it(kind: str, channels: int) -> None:
    content = encode(kind, SECONDS, channels=channels)
    verdict = judge(read(content), content, seconds=SECONDS, same_sound=True)
    assert verdict.outcome == WHOLE, verdict.reason


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_recordings_are_read_whole(name: str) -> None:
    recording = UNUSUAL[name]
    verdict = judge(read(recording.content), recording.content, seconds=recording.seconds)
    if name in NOT_READABLE:
        assert verdict.outcome != LOST, verdict.reason
    else:
        assert verdict.outcome in ((WHOLE, WARNED) if name in MAY_WARN else (WHOLE,)), verdict.reason


def test_joined_recordings_are_read_in_their_order() -> None:
    first, second = (by_soundfile(make_sound(SECONDS, 32000, 1, seed), 32000, "MP3") for seed in (0, 1))
    alone = [full_decoding(content) for content in (first, second)]
    waveform, rate = audio.decode(first + second)
    half = len(waveform) // 2
    for part, expected in zip((waveform[:half], waveform[-len(alone[1].samples) - 1105 :]), alone, strict=True):
        assert correlation(Found(part, rate), expected) > 0.99


def test_a_second_rate_in_joined_mp3s_is_resampled() -> None:
    first, second = (encode("mp3, VBR", 2.0, rate) for rate in (32000, 22050))
    alone = audio.load(second, 32000)
    waveform, rate = audio.decode(first + second)
    assert rate == 32000 and len(waveform) / rate == pytest.approx(4.0, abs=0.15)
    # without the frame that tells the length, the encoder's delay and padding stay: up to 0.1 s
    shifts = range(0, 3200, 800)
    assert max(correlation(Found(waveform[64000 + shift :], rate), Found(alone, rate)) for shift in shifts) > 0.99


@pytest.mark.parametrize("kind", WAYS)
def test_every_way_to_a_recording_gives_the_same_samples(tmp_path: Path, kind: str) -> None:
    content = encode(kind, SECONDS)
    expected, rate = audio.decode(content)
    path = tmp_path / "recording"
    path.write_bytes(content)
    with open(path, "rb") as file:
        assert_same(audio.decode(file), expected, rate)
    assert_same(audio.decode(path), expected, rate)
    assert_same(audio.decode(io.BytesIO(content)), expected, rate)
    named = tmp_path / "named"
    os.mkfifo(named)
    writer = threading.Thread(target=named.write_bytes, args=(content,), daemon=True)
    writer.start()
    assert_same(audio.decode(named), expected, rate)
    writer.join()
    sound = open_sound(path)
    assert_same((np.concatenate(list(sound.blocks)), sound.rate), expected, rate)


def assert_same(decoded: tuple[np.ndarray, int], expected: np.ndarray, rate: int) -> None:
    assert decoded[1] == rate and len(decoded[0]) == len(expected)
    np.testing.assert_allclose(decoded[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["mp3, begins within a frame, VBR", "mp3, two ID3 in front, no Xing", "wav, sizes 0", "mp3, joined"]
)
def test_unusual_recordings_are_the_same_by_path_and_as_bytes(tmp_path: Path, name: str) -> None:
    content = UNUSUAL[name].content
    (tmp_path / "x").write_bytes(content)
    assert_same(audio.decode(tmp_path / "x"), *audio.decode(content))
    assert audio.measure(content)[0] >= len(audio.decode(content)[0])


def test_measuring_gives_the_length_of_unusual_recordings() -> None:
    for name, recording in UNUSUAL.items():
        if name not in NOT_READABLE | MAY_WARN:
            (samples, rate), (waveform, decoded_rate) = audio.measure(recording.content), audio.decode(recording.content)
            assert rate == decoded_rate and abs(samples - len(waveform)) <= 2 * 1152, name


@pytest.mark.parametrize("kind", ["wav, 16 bit", "flac, 16 bit", "mp3, VBR", "m4a, AAC", "ogg, Vorbis", "webm, Opus", "aiff"])
def test_what_is_cut_is_read_up_to_the_cut_with_a_warning_or_refused_if_strict(kind: str) -> None:
    content = encode(kind, 4.0)
    cut = content[: int(0.6 * len(content))]
    warnings: list[str] = []
    try:
        waveform, rate = audio.decode(cut, warnings=warnings, name="rec")
    except AudioError:
        assert full_decoding(cut) is None  # an mp4 whose index stood at its end
        return
    assert len(waveform) / rate == pytest.approx(full_decoding(cut).seconds, abs=0.1)
    if kind not in ("ogg, Vorbis", "webm, Opus"):  # which need not say how long they are
        assert len(warnings) == 1 and "rec" in warnings[0] and "\n" not in warnings[0]
        with pytest.raises(AudioError, match="rec"):
            audio.decode(cut, strict=True, name="rec")


def damaged(*chosen: str) -> list[Recording]:
    return [one for kind in chosen for one in kinds.damaged(SECONDS, kind) if one.kind == kind]


def test_damage_within_is_not_silent() -> None:
    for one in damaged(
        "wav, 16 bit", "flac, 16 bit", "ogg, Vorbis", "mp3, VBR", "m4a, AAC", "m4a, index in front", "aac", "webm, Opus"
    ):
        verdict = judge(read(one.content), one.content)
        assert verdict.outcome != LOST, f"{one.kind}, {one.details}: {verdict.reason}"


def test_what_preparation_keeps_is_what_is_read() -> None:
    for name, recording in UNUSUAL.items():
        if name not in NOT_READABLE:
            waveform, rate = audio.decode(recording.content, warnings=[])
            kept, kept_rate = audio.decode(audio.to_mp3(recording.content), strict=True)
            assert len(kept) / kept_rate == pytest.approx(len(waveform) / rate, abs=0.1), name


def test_a_wav_of_more_than_4_gib_is_read_to_its_end(tmp_path: Path) -> None:
    """The size in its header is what is left of the real one in 32 bits."""
    rate, channels = 192000, 6
    bytes_a_second = 2 * rate * channels
    tail = (make_sound(1.0, rate, channels) * 32767).astype("<i2").tobytes()
    size = (1 << 32) + bytes_a_second * 10
    header = by_soundfile(np.zeros((0, channels), np.float32), rate, "WAV", "PCM_16")
    header = damage.with_wav_sizes(header, size + 36 & 0xFFFFFFFF, size & 0xFFFFFFFF)
    path = tmp_path / "long.wav"
    with open(path, "wb") as file:
        file.write(header)
        file.seek(len(header) + size - len(tail))  # a hole, which takes no room
        file.write(tail)
    assert audio.measure(path) == (size // (2 * channels), rate)
    waveform, _ = audio.decode(path, start=size / bytes_a_second - 1.0, channel=1)
    assert correlation(Found(waveform, rate), Found(make_sound(1.0, rate)[:, 0], rate)) > 0.999


def test_a_part_is_a_part_of_the_whole() -> None:
    for kind in WAYS:
        content = encode(kind, 3.0)
        whole, rate = audio.decode(content)
        part, part_rate = audio.decode(content, start=1.0, end=2.0)
        assert part_rate == rate and len(part) == pytest.approx(rate, abs=2), kind
        assert correlation(Found(part, rate), Found(whole[rate : 2 * rate], rate)) > 0.99, kind
        with pytest.raises(AudioError):
            audio.decode(content, start=9.0)


def test_decoders_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Except mpg123 for damage within frames, which the commands hold back."""
    undamaged_frames = [one for name, one in UNUSUAL.items() if name.startswith("mp3")]
    for one in [*undamaged_frames, *damaged("flac, 16 bit", "ogg, Vorbis", "m4a, AAC", "aac", "wma")]:
        read(one.content)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_good_recordings_do_not_load_the_full_decoder(tmp_path: Path) -> None:
    for kind in ("wav, 16 bit", "flac, 16 bit", "ogg, Vorbis", "mp3, VBR"):
        (tmp_path / kind).write_bytes(encode(kind, SECONDS))
    code = (
        "import sys, pathlib; from datasets import audio\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir(): audio.decode(path); audio.decode(path.read_bytes())\n"
        "sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0


def test_without_pyav_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode("m4a, AAC", SECONDS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "av"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="pip install av"):
        audio.decode(content)


def test_a_chain_is_read_in_constant_memory(tmp_path: Path) -> None:
    """Blocks come while the file is read, and are not longer than asked for."""
    content = by_pyav(make_sound(20.0, 44100, 2), 44100, "adts", "aac")
    parts = audio.read_blocks(content, "x", lambda rate: 10000)
    begin = time.monotonic()
    assert next(parts) == 44100
    lengths = [len(block) for block in parts]
    assert max(lengths) <= 10000 and sum(lengths) >= 20 * 44100 and time.monotonic() - begin < 20
