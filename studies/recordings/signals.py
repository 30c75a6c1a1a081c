"""Sound in which a lost, repeated or displaced part shows."""

from __future__ import annotations

import numpy as np

LEVELS = (1.0, 0.7, 0.6, 0.0, 0.5, 0.4, 0.3, 0.3)  # of the channels; that of low frequencies in 5.1 and 7.1 is silent


def make_sound(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return (samples, channels) float32 within [-0.7, 0.7]: a chirp in noise whose level changes from moment to moment.

    All channels hold the same sound at different levels, so that every way to make one of them gives that sound.
    """
    generator = np.random.default_rng(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    level = np.interp(time, np.arange(0, seconds + 0.2, 0.1), generator.uniform(0.1, 1, len(np.arange(0, seconds + 0.2, 0.1))))
    low, high = generator.uniform(100, 300), generator.uniform(1500, 3000)  # Hz
    chirp = np.sin(2 * np.pi * (low * time + (high - low) * time**2 / (2 * max(seconds, 0.1))))
    noise = np.convolve(generator.uniform(-1, 1, count), np.ones(4) / 4, "same")  # soft at the top, as sound is
    mono = level * (0.35 * chirp + 0.35 * noise)
    return (mono[:, None] * np.array(LEVELS[:channels])).astype(np.float32)
