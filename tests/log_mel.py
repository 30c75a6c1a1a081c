"""The log-mel front end once more: an independent formula in float64, with torchaudio's filters."""

from __future__ import annotations

import numpy as np
import pytest

from models.config import MelConfig


def kaldi_bank(n_mels: int, n_fft: int, sample_rate: int, fmin: float, fmax: float) -> np.ndarray:
    """(n_mels, n_fft // 2 + 1): torchaudio's Kaldi filters, zero at the Nyquist bin."""
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    bank, _ = kaldi.get_mel_banks(n_mels, n_fft, sample_rate, fmin, fmax, 100.0, -500.0, 1.0)
    return np.pad(bank.double().numpy(), ((0, 0), (0, 1)))


def reference(x: np.ndarray, config: MelConfig) -> np.ndarray:
    """One waveform (samples,) -> (n_mels, frames), frame by frame in float64."""
    x = x.astype(np.float64)
    y = x[1:] - 0.97 * x[:-1]
    half = config.n_fft // 2
    y = np.concatenate([y[1 : half + 1][::-1], y, y[-half - 1 : -1][::-1]])  # reflect
    window = np.zeros(config.n_fft)
    start = (config.n_fft - config.win_length) // 2
    steps = np.arange(config.win_length)
    window[start : start + config.win_length] = 0.5 - 0.5 * np.cos(2 * np.pi * steps / (config.win_length - 1))
    count = 1 + (len(y) - config.n_fft) // config.hop_size
    frames = np.stack([y[i * config.hop_size : i * config.hop_size + config.n_fft] * window for i in range(count)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bank = kaldi_bank(config.n_mels, config.n_fft, config.sample_rate, config.fmin, config.fmax)
    energy = bank @ power.T
    return (np.log(energy + 1e-5 if config.log_floor is None else np.maximum(energy, config.log_floor)) + 4.5) / 5
