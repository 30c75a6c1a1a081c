"""Noises and tones that are computed.

A signal is a function of a random generator and of the time axis in seconds, (samples,), and stays within [-1, 1].
"""

from collections.abc import Iterator

import numpy as np

from datasets.prepare.opensounds.sounds import SAMPLE_RATE, LabelledSound
from datasets.prepare.opensounds.tables import Package


def sines(t: np.ndarray, *frequencies: float) -> np.ndarray:
    """The mean of sines; frequencies in Hz."""
    return sum(np.sin(2 * np.pi * frequency * t) for frequency in frequencies) / len(frequencies)


def white_noise(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Gaussian noise, 0.25 rms, clipped where it leaves [-1, 1]."""
    return np.clip(0.25 * rng.standard_normal(len(t)), -1, 1)


def pink_noise(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Noise whose power falls by 3 dB per octave, flat below 20 Hz."""
    frequency = np.maximum(np.fft.rfftfreq(len(t), 1 / SAMPLE_RATE), 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(t))) / np.sqrt(frequency), len(t))
    return noise / np.abs(noise).max()


def sweep(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Exponential sweep from 0.1 to 1 kHz up to 1.6 to 10 kHz."""
    low, high = 10 ** rng.uniform(2, 3), 10 ** rng.uniform(3.2, 4)
    rate = np.log(high / low) / t[-1]
    return np.sin(2 * np.pi * low * np.expm1(rate * t) / rate)


def mains_hum(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """50 or 60 Hz with harmonics of random phase."""
    mains = rng.choice((50, 60))
    return sum(np.sin(2 * np.pi * (mains * h * t + rng.random())) / h for h in (1, 2, 3, 4, 6)) / 2.25


def dialing(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """5 to 11 random keys, as many as fit, with the row and column tones of ITU-T Q.23."""
    keys = rng.integers((0, 0), (4, 3), size=(rng.integers(5, 12), 2))
    tone, pause = rng.uniform(0.08, 0.2), rng.uniform(0.05, 0.15)  # seconds
    key, phase = np.divmod(t, tone + pause)
    pressed = [sines(t, (697, 770, 852, 941)[row], (1209, 1336, 1477)[column]) for row, column in keys]
    return sum(signal * (key == k) for k, signal in enumerate(pressed)) * (phase < tone)


def dial_tone(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """The dial tone of North America or of Europe."""
    return sines(t, *((350, 440), (425,))[rng.integers(2)])


def busy_signal(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A busy signal of North America, Europe, the United Kingdom, or fast as on European congestion."""
    frequencies, on = (((480, 620), 0.5), ((425,), 0.5), ((400,), 0.375), ((425,), 0.25))[rng.integers(4)]
    return sines(t, *frequencies) * (t % (2 * on) < on)


SIGNALS = {
    "white noise": (("White noise",), white_noise),
    "pink noise": (("Pink noise",), pink_noise),
    "sine": (("Sine wave",), lambda rng, t: sines(t, 10 ** rng.uniform(2.2, 3.8))),
    "sweep": (("Chirp tone",), sweep),
    "mains hum": (("Mains hum", "Hum"), mains_hum),
    "dialing": (("Telephone dialing, DTMF",), dialing),
    "dial tone": (("Dial tone",), dial_tone),
    "busy signal": (("Busy signal",), busy_signal),
}


def signal_sounds(package: Package) -> Iterator[LabelledSound]:
    """Noises and tones of 3 to 8 s with peaks up to -20 to -6 dBFS; seeded by the split."""
    for number, (name, (labels, signal)) in enumerate(SIGNALS.items()):
        for k in range(package.amount):
            rng = np.random.default_rng([package.split == "eval", number, k])
            t = np.arange(int(rng.uniform(3, 8) * SAMPLE_RATE)) / SAMPLE_RATE
            waveform = 10 ** (rng.uniform(-20, -6) / 20) * signal(rng, t)
            yield LabelledSound(f"{name} {k}", labels, waveform.astype(np.float32), SAMPLE_RATE, "generated")
