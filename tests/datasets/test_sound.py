from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datasets import audio
from datasets import sound as blocks
from datasets.audio import AudioError
from datasets.sound import Resampler, open_sound

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (40000, 2)).astype(np.float32)


def whole(source: object, rate: int | None = None, to_rate: int | None = None) -> np.ndarray:
    sound = open_sound(source, rate)
    return np.concatenate(list(sound.at_rate(to_rate or sound.rate)))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8000, 44100, 32000])
def test_blocks_are_what_loading_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, rate: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_FRAMES", 1777)
    path = tmp_path / "x"
    soundfile.write(path, NOISE, rate, format=format)
    expected = audio.load(path, 32000)
    with open(path, "rb") as file:
        for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), file):
            found = whole(source, to_rate=32000)
            assert len(found) == len(expected)
            np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7 if format == "MP3" else 0)


def test_samples_of_every_kind_are_the_same_sound() -> None:
    pcm = np.random.default_rng(0).integers(-128, 128, (3000, 2), dtype=np.int8)
    expected = (pcm.astype(np.float64) / 128).mean(1)
    same = [
        pcm, pcm.T, pcm.astype(np.int16) * 256, pcm.astype(np.int32) * 2**24, (pcm.astype(int) + 128).astype(np.uint8),
        pcm / 128, (pcm / 128).astype(np.float16), (pcm / 128).astype(">f4"), np.asfortranarray(pcm / 128),
        torch.from_numpy(pcm), torch.from_numpy(pcm / 128).T.requires_grad_(), torch.from_numpy(pcm / 128).bfloat16(),
    ]  # fmt: skip
    for samples in same:
        result = whole(samples, 16000)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "part"),
    [
        (np.zeros(10), None, "sample_rate"),
        (np.zeros(10), 0, "sample_rate"),
        (np.zeros(10), 44100.5, "sample_rate"),
        (np.zeros(0), 8000, "no samples"),
        (np.zeros((1, 2, 10)), 8000, "shape"),
        (np.zeros((2, 2)), 8000, "channels"),
        (np.zeros((3, 1000)), 8000, "one by one"),
        (np.zeros((1000, 8)), 8000, "one by one"),
        (np.zeros(10), float("nan"), "sample_rate"),
        (np.zeros(10, np.int64), 8000, "int64"),
        (np.zeros(10, complex), 8000, "complex"),
        (np.array(["a"]), 8000, "allowed"),
        (np.array([0, np.nan]), 8000, "NaN"),
        (np.array([0, 1e300]), 8000, "full scale"),
        ([0.0, 0.1], 8000, "list"),
        ("x.wav", 8000, "sample_rate"),
        ("a\0b", None, "zero byte"),
        (io.StringIO("text"), None, "binary"),
        (7, None, "int"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(samples: object, rate: int | None, part: str) -> None:
    with pytest.raises(ValueError, match=part) as error:
        whole(samples, rate)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [8000.0, np.float32(8000), np.int64(8000)])
def test_rates_are_whole_numbers_of_any_type(rate: float) -> None:
    assert open_sound(np.zeros(10), rate).rate == 8000


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3"])
def test_truncation_is_noticed_at_the_end(format: str) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.tile(NOISE, (4, 1)), 32000, format=format)
    cut = content.getvalue()[: len(content.getvalue()) // 2]
    sound = open_sound(cut, name="cut")
    assert sum(map(len, sound.blocks)) > 60000
    assert len(sound.warnings) == 1 and "cut is shorter" in sound.warnings[0]
    with pytest.raises(AudioError):
        list(open_sound(cut, strict=True).blocks)


def test_what_a_consumer_raises_stays_its_own(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 32000)
    with pytest.raises(OSError, match="mine") as error:
        for _ in open_sound(tmp_path / "x.wav").blocks:
            raise OSError("mine")
    assert type(error.value) is OSError


def test_less_than_a_sample_at_the_other_rate_is_an_error() -> None:
    with pytest.raises(AudioError, match="shorter than one sample"):
        whole(np.ones(1, np.float32), 2**31 - 1, 8000)


@pytest.mark.parametrize("rates", [(44100, 32000), (8000, 32000), (32000, 32000), (96000, 44100)])
def test_resampling_does_not_depend_on_how_sound_is_cut(rates: tuple[int, int]) -> None:
    resampler, rng, start, parts = Resampler(*rates), np.random.default_rng(1), 0, []
    while start < len(NOISE):
        stop = start + int(rng.integers(0, 3000))
        parts.append(resampler.push(NOISE[start:stop, 0]))
        start = stop
    np.testing.assert_array_equal(np.concatenate([*parts, resampler.finish()]), audio.resample(NOISE[:, 0].copy(), *rates))


def test_a_long_array_takes_no_room() -> None:
    samples = np.zeros(20 * 60 * 8000, np.int16)  # 20 minutes, which at 32 kHz are 154 MB
    tracemalloc.start()
    try:
        length = sum(len(block) for block in open_sound(samples, 8000).at_rate(32000))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert length == 20 * 60 * 32000


def test_a_low_rate_comes_in_short_blocks(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(10_000), 20)
    for sound in (open_sound(tmp_path / "slow.wav"), open_sound(np.zeros(10_000), 20)):
        assert max(len(block) for block in sound.at_rate(32000)) <= 60 * 32000  # of 500 s
