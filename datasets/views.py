"""Views: what can be heard of recordings without labels, made again for each training step.

A teacher says what is in a view, so nothing needs to be kept: recordings are mixed, cut, played faster or slower, filtered, put
into rooms, covered with noise, coded coarsely, and turned down until nothing is left. All random numbers come from torch's
default generator.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

SOURCES = (0.5, 0.35, 0.15)  # share of the views of one, two and three recordings
LEVELS = (-15.0, 15.0)  # dB of a further recording relative to the first one
SPEEDS, SPEED_RATE = (0.7, 1.4), 0.4  # range, and share of the recordings that are played at another speed
FILTER_RATE, FILTER_DB, FILTER_KNOTS = 0.5, 12.0, 8  # share, range of +-dB, points between which the response is interpolated
ROOM_RATE, ROOM_SECONDS = 0.25, (0.1, 1.5)  # share, range of the time in which a room's reverberation falls by 60 dB
NOISE_RATE, NOISE_DB = 0.2, (5.0, 40.0)  # share, range of the ratio of signal to noise
COARSE_RATE = 0.05  # share of the views that are coded with 8 bits
GAIN_DB = (-25.0, 10.0)  # of a view
FAINT_RATE, FAINT_DB = 0.04, (-90.0, -30.0)  # share of the views that are turned down by so much more
SILENCE_RATE = 0.02
_SIZE = 8000  # lengths of Fourier transforms are multiples, which have small prime factors


def random_views(waveforms: Tensor, sample_rate: int, seconds: tuple[float, float]) -> Tensor:
    """Recordings (B, samples) -> views of them (B, length), each of its own recording and up to two others of the batch.

    All views have one length, drawn log-uniformly from the range `seconds` and no longer than the recordings. They lie in [-1, 1].
    Zeros at the end of a recording count as padding: a view begins where there is sound.
    """
    longest = waveforms.shape[1]
    drawn = _uniform(math.log(seconds[0]), math.log(seconds[1]))
    length = min(max(_SIZE, round(math.exp(drawn) * sample_rate / _SIZE) * _SIZE), longest)
    ends = (waveforms.shape[1] - (waveforms.flip(1) != 0).byte().argmax(1)).tolist()  # where padding begins; of silence, its length
    return torch.stack([_view(waveforms, ends, index, length, sample_rate) for index in range(len(waveforms))])


def _view(waveforms: Tensor, ends: list[int], index: int, length: int, sample_rate: int) -> Tensor:
    """A view of recording `index`: the sum of its sources, in a room, with noise, at a level of its own."""
    if _chance(SILENCE_RATE):
        return waveforms.new_zeros(length)
    count = 1 + int(torch.multinomial(torch.tensor(SOURCES), 1))
    others = torch.randint(len(waveforms), (count - 1,)).tolist()
    spectrum, loudness = 0.0, torch.zeros((), dtype=torch.float64, device=waveforms.device)
    for number, source in enumerate((index, *others)):
        part = _crop(waveforms[source], ends[source], length)
        heard = _at_speed(part, length)
        level = part.square().mean().sqrt().double()
        if number:  # by tensors: a GPU is not waited for
            gain = loudness / level * _amplitude(_uniform(*LEVELS))
            heard = heard * torch.where((loudness > 0) & (level > 0), gain, 1.0)
        loudness = torch.where(loudness > 0, loudness, level)
        if _chance(FILTER_RATE):
            heard = heard * _response(length, sample_rate, part.device)
        spectrum = spectrum + heard
    if _chance(ROOM_RATE):
        spectrum = spectrum * torch.fft.rfft(_room(length, sample_rate, waveforms.device))
    view = torch.fft.irfft(spectrum, length)
    if _chance(NOISE_RATE):
        view = view + _noise(length, view) * _amplitude(-_uniform(*NOISE_DB))
    view = view * _amplitude(_uniform(*GAIN_DB) + (_uniform(*FAINT_DB) if _chance(FAINT_RATE) else 0.0))
    if _chance(COARSE_RATE):
        view = _coded(view)
    return view.clamp(-1.0, 1.0)


def _crop(waveform: Tensor, end: int, length: int) -> Tensor:
    """Up to 1.4 times `length` samples of a recording, by its speed, from where there is sound; zeros where there are too few."""
    speed = math.exp(_uniform(*map(math.log, SPEEDS))) if _chance(SPEED_RATE) else 1.0
    wanted = max(1, round(length * speed / _SIZE)) * _SIZE
    start = int(_uniform(0, max(0, end - wanted // 2)))
    part = waveform[start : start + wanted]
    return functional.pad(part, (0, wanted - len(part)))


def _at_speed(part: Tensor, length: int) -> Tensor:
    """The spectrum, (length // 2 + 1,), of a part that is resampled to `length` samples: what is beyond is cut off, or zero."""
    spectrum = torch.fft.rfft(part) * (length / len(part))
    bins = length // 2 + 1
    return functional.pad(spectrum[:bins], (0, max(0, bins - len(spectrum))))


def _response(length: int, sample_rate: int, device: torch.device) -> Tensor:
    """Factors of the frequencies of a filter, (length // 2 + 1,): a slope, smooth bumps, and sometimes a band limit."""
    octaves = torch.linspace(0, math.log2(sample_rate / 100 + 1), 65)  # 0 to 8.3, from 50 Hz on
    bumps = (2 * torch.rand(1, 1, FILTER_KNOTS) - 1) * _uniform(0, FILTER_DB)
    bumps = functional.interpolate(bumps, len(octaves), mode="linear", align_corners=True).flatten()
    decibels = bumps + _uniform(-3.0, 3.0) * (octaves - 4)  # dB per octave, around 0.8 kHz
    if _chance(0.3):
        decibels -= 24 * (octaves - _uniform(4.0, 8.0)).clamp(min=0)  # low-pass from 0.8 kHz on
    if _chance(0.3):
        decibels -= 24 * (_uniform(1.0, 4.0) - octaves).clamp(min=0)  # high-pass up to 0.8 kHz
    factors = 10 ** (decibels.clamp(-80, 40) / 20)
    factors = (factors.pin_memory() if device.type == "cuda" else factors).to(device, non_blocking=True)
    lower, share = _octave_positions(length, sample_rate, device)
    return torch.lerp(factors[lower], factors[lower + 1], share)


@functools.lru_cache(maxsize=8)
def _octave_positions(length: int, sample_rate: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For the frequencies of a spectrum the point below among 65 of `_response`, and the way to the next one in [0, 1]."""
    frequencies = torch.arange(length // 2 + 1, device=device) * (sample_rate / length)
    positions = 64 * torch.log2(frequencies / 50 + 1) / math.log2(sample_rate / 100 + 1)
    lower = positions.floor().clamp(max=63)
    return lower.long(), positions - lower


def _room(length: int, sample_rate: int, device: torch.device) -> Tensor:
    """A synthetic impulse response: the direct sound, then noise that decays exponentially."""
    seconds = math.exp(_uniform(*map(math.log, ROOM_SECONDS)))
    time = torch.arange(length, device=device) / sample_rate
    tail = torch.randn(length, device=device) * torch.exp(-6.9 / seconds * time)
    tail = tail / tail.norm() * _amplitude(_uniform(-15.0, 6.0))
    delay = int(_uniform(0.001, 0.03) * sample_rate)
    tail = torch.cat([torch.zeros(delay, device=device), tail])[:length]
    tail[0] += 1.0
    return tail


def _noise(length: int, view: Tensor) -> Tensor:
    """Noise as loud as a view: white to brown."""
    spectrum = torch.fft.rfft(torch.randn(length, device=view.device))
    frequencies = torch.arange(1, len(spectrum) + 1, device=view.device)
    noise = torch.fft.irfft(spectrum * torch.exp(_uniform(-1.0, 0.0) * frequencies.log()), length)
    return noise * (view.square().mean() / noise.square().mean().clamp(min=1e-20)).sqrt()


def _coded(view: Tensor) -> Tensor:
    """8 bits by mu-law, as telephony has them."""
    compressed = view.sign() * torch.log1p(255 * view.abs().clamp(max=1)) / math.log(256)
    quantized = (compressed * 127).round() / 127
    return quantized.sign() * torch.expm1(quantized.abs() * math.log(256)) / 255


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability


def _amplitude(decibels: float) -> float:
    return 10 ** (decibels / 20)
