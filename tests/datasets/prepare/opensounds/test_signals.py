"""Computed signals have the frequencies and slopes of their definitions."""

import numpy as np
import pytest

from datasets.labels import audioset_labels
from datasets.prepare.opensounds.signals import SIGNALS, signal_sounds
from datasets.prepare.opensounds.sounds import SAMPLE_RATE as RATE
from datasets.prepare.opensounds.sounds import LabelledSound
from datasets.prepare.opensounds.tables import Package


def signal(name: str, seconds: float = 3.0) -> np.ndarray:
    _, make = SIGNALS[name]
    return make(np.random.default_rng(5), np.arange(int(seconds * RATE)) / RATE)


def strongest(waveform: np.ndarray, count: int) -> list[float]:
    """The `count` strongest separate frequencies in Hz, by a zero-padded spectrum."""
    size = 1 << 18
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), size)) ** 2
    found = []
    for _ in range(count):
        peak = int(power.argmax())
        found.append(peak * RATE / size)
        reach = 2 * size // len(waveform)  # main lobe of the window
        power[max(0, peak - reach) : peak + reach + 1] = 0
    return sorted(found)


def test_dialing_is_dtmf():
    waveform = signal("dialing")
    loud = np.convolve(np.abs(waveform), np.ones(160) / 160, "same") > 0.02 * np.abs(waveform).max()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    keys = [waveform[a + 200 : b - 200] for a, b in edges.reshape(-1, 2)]
    assert 5 <= len(keys) <= 11
    for key in keys:
        row, column = strongest(key, 2)
        assert min(abs(row - exact) for exact in (697, 770, 852, 941)) < 10
        assert min(abs(column - exact) for exact in (1209, 1336, 1477)) < 10


def test_sine_is_one_line():
    waveform = signal("sine")
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    (frequency,) = strongest(waveform, 1)
    line = round(frequency * len(waveform) / RATE)
    assert power[line - 3 : line + 4].sum() > 0.9999 * power.sum()


@pytest.mark.parametrize(("name", "slope"), [("white noise", 0.0), ("pink noise", -3.0)])
def test_noise_slope(name, slope):
    waveform = signal(name)
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)
    octaves = [power[(frequency >= low) & (frequency < 2 * low)].mean() for low in 125 * 2.0 ** np.arange(6)]
    assert np.polyfit(range(6), 10 * np.log10(octaves), 1)[0] == pytest.approx(slope, abs=0.3)  # dB per octave


def test_signals_are_in_range_repeatable_and_differ_between_splits():
    def made(split: str) -> list[LabelledSound]:
        return list(signal_sounds(Package("p", split, "CC0", "permissive", "signals", segments=2, amount=1)))

    assert [sound.source for sound in made("train")] == [f"{name} 0" for name in SIGNALS]
    for train, evaluation, repeated in zip(made("train"), made("eval"), made("train"), strict=True):
        assert np.isfinite(train.waveform).all() and 0.01 < np.abs(train.waveform).max() <= 10 ** (-6 / 20)
        assert train.labels == evaluation.labels and set(train.labels) <= set(audioset_labels())
        assert 3 * RATE <= len(train.waveform) <= 8 * RATE
        assert len(train.waveform) != len(evaluation.waveform)
        np.testing.assert_array_equal(train.waveform, repeated.waveform)
