from __future__ import annotations

import io
import logging
import tracemalloc

import numpy as np
import pytest
import soundfile

from datasets import audio
from datasets.audio import AudioError
from datasets.channels import mix, mono
from datasets.sound import open_sound

RATE = 1000  # Hz
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (35 * RATE, 8)).astype(np.float32)
LEFT = NOISE[:, 0]


def mixed(samples: np.ndarray, cuts: tuple[int, ...] = (), **options: object) -> np.ndarray:
    blocks = np.split(samples, cuts)
    return np.concatenate(list(mono(blocks, RATE, "rec", **{"warnings": [], **options})))


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def decibels(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples)))


def test_stereo_and_counts_without_a_layout_are_averaged() -> None:
    np.testing.assert_array_equal(mixed(NOISE[:, :1]), LEFT)
    for count in (2, 3, 4, 7):
        np.testing.assert_allclose(mixed(NOISE[:, :count]), NOISE[:, :count].mean(1), atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "lfe", "weights"),
    [(5, None, (1, 1, 1.414, 0.707, 0.707)), (6, 3, (1, 1, 1.414, 0, 0.707, 0.707)), (8, 3, (1, 1, 1.414, 0, *[0.707] * 4))],
)
def test_surround_is_mixed_by_the_usual_weights(channels: int, lfe: int | None, weights: tuple[float, ...]) -> None:
    samples = NOISE[:, :channels]
    np.testing.assert_allclose(mixed(samples), samples @ np.array(weights) / sum(weights), atol=2e-4)
    full = np.ones((RATE, channels), np.float32)
    assert np.abs(mixed(full)).max() == pytest.approx(1)
    if lfe is not None:
        alone = np.zeros_like(samples)
        alone[:, lfe] = LEFT
        np.testing.assert_array_equal(mixed(alone), LEFT)  # nothing else is there
        alone[:, 0] = 0.01 * LEFT
        assert decibels(mixed(alone)) < decibels(0.01 * LEFT)


@pytest.mark.parametrize("count", [2, 4, 5, 6, 8])
def test_one_channel_that_is_turned_round_does_not_silence_the_other(count: int) -> None:
    samples = np.zeros((len(LEFT), count), np.float32)
    samples[:, 0], samples[:, 1] = LEFT, -0.99 * LEFT
    warnings: list[str] = []
    np.testing.assert_array_equal(mixed(samples, warnings=warnings), LEFT)
    assert len(warnings) == 1 and warnings[0].startswith("rec ")


@pytest.mark.parametrize(("share", "cancels"), [(0.3, False), (0.2, True)])
def test_twelve_decibels_may_be_lost(share: float, cancels: bool) -> None:
    """`share` of the amplitude is left: the mix is 10.5 or 14 dB below the mean power of the channels."""
    kept, lost = share * NOISE[:, 1], np.sqrt(1 - share**2) * LEFT
    warnings: list[str] = []
    result = mixed(np.stack([kept + lost, kept - lost], 1), warnings=warnings)
    assert bool(warnings) == cancels
    assert decibels(result) == pytest.approx(decibels(LEFT if cancels else kept), abs=1)


def test_uncorrelated_single_and_silent_channels_do_not_cancel() -> None:
    warnings: list[str] = []
    many = np.random.default_rng(1).normal(0, 0.1, (RATE, 64)).astype(np.float32)
    one_of_many = np.zeros((RATE, 32), np.float32)
    one_of_many[:, 5] = LEFT[:RATE]
    last_bit = np.tile(np.float32([[1 / 32768, -1 / 32768]]), (RATE, 1)) / 2
    for samples in (many, one_of_many, NOISE, np.zeros((RATE, 2), np.float32), last_bit):
        mixed(samples, warnings=warnings)
    assert warnings == []


def test_what_cancels_is_decided_for_stretches_and_not_for_blocks() -> None:
    stereo = np.stack([LEFT, LEFT], 1)
    stereo[10 * RATE : 20 * RATE, 1] *= -0.5  # the second stretch cancels up to 6 dB
    stereo[20 * RATE : 30 * RATE, 0] *= -0.9  # the third does so entirely
    warnings: list[str] = []
    expected = mixed(stereo, warnings=warnings)
    assert len(warnings) == 1 and "channel 2" in warnings[0]
    np.testing.assert_allclose(expected[: 20 * RATE], stereo[: 20 * RATE].mean(1), atol=1e-7)
    np.testing.assert_array_equal(expected[20 * RATE : 30 * RATE], stereo[20 * RATE : 30 * RATE, 1])
    np.testing.assert_array_equal(expected[30 * RATE :], LEFT[30 * RATE :])
    for cuts in ((1, 2, 9999), tuple(range(777, len(stereo), 777)), (10_000, 20_000, 30_000)):
        np.testing.assert_array_equal(mixed(stereo, cuts), expected)


@pytest.mark.parametrize(("count", "rate"), [(2, 48000), (100, 48000), (2, 10_000_000)])
def test_no_more_than_a_stretch_is_held(count: int, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.channels.MAX_STRETCH", 1 << 20)
    block = np.random.default_rng(0).uniform(-0.5, 0.5, (1 << 16) // count * count).astype(np.float32).reshape(-1, count)
    tracemalloc.start()
    try:
        assert sum(map(len, mono((block.copy() for _ in range(200)), rate, "rec"))) == 200 * len(block)
        assert tracemalloc.get_traced_memory()[1] < 20e6  # of 52; a stretch has 4 MB
    finally:
        tracemalloc.stop()


def test_all_ways_to_read_give_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = NOISE.copy()[:, :2]
    samples[10 * RATE : 20 * RATE, 1] = -samples[10 * RATE : 20 * RATE, 0]
    content = wav(samples)
    expected, rate = audio.decode(content, warnings=[])
    assert rate == RATE and np.abs(expected[10 * RATE : 20 * RATE]).max() > 0.4
    monkeypatch.setattr("datasets.sound.BLOCK_FRAMES", 777)
    for source, rate in ((content, None), (samples, RATE), (samples.T.astype(np.float64), RATE)):
        sound = open_sound(source, rate)
        assert sound.channels == 2
        np.testing.assert_array_equal(np.concatenate(list(sound.blocks)), expected)
        assert len(sound.warnings) == 1
    head = audio.decode(content, seconds=12, warnings=[])[0]  # ends within a stretch
    np.testing.assert_array_equal(head, expected[: len(head)])
    assert 12 * RATE <= len(head) < 13 * RATE
    part = audio.decode(content, start=10, end=15, warnings=[])[0]
    np.testing.assert_array_equal(part, expected[10 * RATE : 15 * RATE])


@pytest.mark.parametrize(("count", "seconds", "broken"), [(1, 5, 5.5), (2, 5, 10.5), (2, 10, 10.5), (1, 10, 10.5)])
def test_no_more_than_a_head_is_read(count: int, seconds: float, broken: float) -> None:
    """Of several channels, as many whole stretches of 10 s as hold it."""
    samples = NOISE[:, :count].copy()
    samples[round(broken * RATE)] = np.nan
    assert len(audio.decode(wav(samples), seconds=seconds)[0]) == pytest.approx((seconds + 0.1) * RATE, abs=1)
    with pytest.raises(AudioError, match="NaN"):
        audio.decode(wav(samples), seconds=broken)


def test_without_a_list_a_warning_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    content = wav(np.stack([LEFT, -LEFT], 1))
    with caplog.at_level(logging.WARNING):
        audio.decode(content, name="rec.wav")
    assert len(caplog.records) == 1 and "rec.wav" in caplog.text


def test_one_channel_is_taken_alone() -> None:
    samples = NOISE[:, :3]
    for channel in (1, 2, 3):
        expected = samples[:, channel - 1]
        np.testing.assert_array_equal(audio.decode(wav(samples), channel=channel)[0], expected)
        np.testing.assert_array_equal(np.concatenate(list(open_sound(wav(samples), channel=channel).blocks)), expected)
        np.testing.assert_array_equal(mix(samples, "rec", channel), expected)
    broken = samples.copy()
    broken[7, 0] = np.nan
    np.testing.assert_array_equal(mixed(broken, channel=2), samples[:, 1])
    for channel in (0, -1, 1.5, True, "left"):
        with pytest.raises(ValueError, match="channel"):
            open_sound(wav(samples), channel=channel)
    for read in (audio.decode, open_sound):
        with pytest.raises(AudioError, match="rec has 3 channels"):
            read(wav(samples), channel=4, name="rec")


@pytest.mark.parametrize(("scale", "advice"), [(2**15, "32768"), (2**23, "8388608"), (2**31, "2147483648"), (1e20, "damaged")])
def test_integers_as_floating_point_are_refused_everywhere_with_their_scale(scale: float, advice: str) -> None:
    for samples in (LEFT * scale, np.stack([LEFT, LEFT], 1) * scale):
        for read in (
            lambda samples: audio.decode(wav(samples), name="rec"),
            lambda samples: audio.to_mp3(wav(samples, 32000), name="rec"),
            lambda samples: list(open_sound(wav(samples), name="rec").blocks),
            lambda samples: list(open_sound(samples, RATE, name="rec").blocks),
        ):
            with pytest.raises(AudioError, match=f"rec has samples of .*{advice}"):
                read(samples)
    assert np.abs(audio.decode(wav(LEFT * 100))[0]).max() > 40  # loud, but not at the scale of integers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_everywhere(value: float) -> None:
    for count in (1, 2, 6):
        samples = NOISE[:, :count].copy()
        samples[30 * RATE, count - 1] = value
        for read in (audio.decode, lambda source, name: list(open_sound(source, name=name).blocks)):
            with pytest.raises(AudioError, match="rec holds NaN or infinite"):
                read(wav(samples), name="rec")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("count", [3, 5, 6, 8])
def test_ogg_has_its_channels_in_the_order_of_wav_files(subtype: str, count: int) -> None:
    """Vorbis and Opus store left, centre, right, surround channels, low frequencies; libsndfile writes them as given."""
    order = {3: "LCR", 5: "LCRlr", 6: "LCRlrF", 8: "LCRsdlrF"}[count]
    times = np.arange(48000) / 48000
    waves = {name: 0.4 * np.sin(2 * np.pi * 20 * (i + 1) * times) for i, name in enumerate("LRCFlrsd")}
    file = io.BytesIO()
    soundfile.write(file, np.stack([waves[name] for name in order], 1), 48000, format="OGG", subtype=subtype)
    for number, name in enumerate((name for name in "LRCFlrsd" if name in order), 1):
        found = audio.decode(file.getvalue(), channel=number)[0]
        assert np.argmax(np.abs(np.fft.rfft(found))) == 20 * ("LRCFlrsd".index(name) + 1)
