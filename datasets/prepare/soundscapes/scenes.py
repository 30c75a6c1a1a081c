"""One scene: a background, and events in it whose onsets and offsets are known."""

from dataclasses import dataclass, field

import numpy as np

from datasets import audio
from datasets.prepare.corpus import CorpusClip
from datasets.prepare.soundscapes.material import PARTS, Material
from datasets.strong_labels import LabelledEvent, merged

SAMPLE_RATE = 32000  # Hz, of the corpus and the scenes
SECONDS = 10.0
SAMPLES = int(SECONDS * SAMPLE_RATE)
BACKGROUND_DB = (-55.0, -35.0)  # level of backgrounds, dBFS
SNR_DB = (3.0, 25.0)  # of an event's sounding parts against the background
LONGEST_EVENT = 6.0  # seconds; longer sounds are cut at random
SHORT_SOUND = 0.4  # seconds; shorter sounds, such as steps and strokes, are repeated
REPETITIONS = (3, 8)
SPEED = (0.93, 1.07)  # pitch and tempo
FRAME = 320  # samples, 10 ms, of the levels that tell where a sound sounds
RANGE_DB = 25.0  # a frame sounds if its level is less than this below the loudest
GAP_SECONDS = 0.5  # shorter pauses belong to an event
SHORTEST_PART = 0.05  # seconds; of what sounds alone
FADE_SECONDS = 0.01
ROOM_SHARE = 0.5  # of the scenes have reverberation
ROOM_SECONDS = (0.15, 0.8)  # reverberation time (RT60)
DIRECT_DB = (0.0, 12.0)  # direct sound against reverberation
PEAK = 0.98


@dataclass(frozen=True)
class Scene:
    """A mixture and what is in it."""

    waveform: np.ndarray = field(repr=False)  # (SAMPLES,) float32 at SAMPLE_RATE
    events: list[LabelledEvent]  # class indices are those of the material's labels; those of a class do not overlap
    origins: list[tuple[str, float, float, float]]  # corpus clip, onset and offset in seconds, SNR in dB; the background: 0, 10, 0


def scene(material: Material, part: str, seed: int, index: int, max_events: int) -> Scene:
    """Mix the scene of this number, always the same one: one to `max_events` events, each in one or several sounding parts."""
    rng = np.random.default_rng([seed, PARTS.index(part), index])
    mixture, name = background(material, part, rng)
    level = 10 ** (rng.uniform(*BACKGROUND_DB) / 20)
    mixture *= level / rms(mixture)
    origins = [(name, 0.0, SECONDS, 0.0)]
    room = impulse_response(rng) if rng.random() < ROOM_SHARE else None
    events: list[LabelledEvent] = []
    for _ in range(rng.integers(1, max_events + 1)):
        clip = material.event(part, rng)
        sound = foreground(material, clip, rng, room)
        parts = sounding_parts(sound)
        snr = rng.uniform(*SNR_DB)
        sound *= level * 10 ** (snr / 20) / rms(np.concatenate([sound[start:stop] for start, stop in parts]))
        first, last = parts[0][0], parts[-1][1]
        begin = int(rng.integers(0, max(SAMPLES - (last - first), 0) + 1))  # of the first sounding sample
        sound = sound[max(0, first - begin) :]
        shift = begin - min(first, begin)
        sound = faded(sound[: SAMPLES - shift])
        mixture[shift : shift + len(sound)] += sound
        for start, stop in parts:
            onset, offset = (round(min(max(at - first + begin, 0) / SAMPLE_RATE, SECONDS), 3) for at in (start, stop))
            if offset > onset:
                events += [LabelledEvent(onset, offset, k) for k in material.classes_of(clip)]
        origins.append((clip.name, round(begin / SAMPLE_RATE, 3), events[-1].offset, round(float(snr), 1)))
    mixture *= min(1.0, PEAK / np.abs(mixture).max())
    return Scene(mixture.astype(np.float32), merged(events), origins)


def background(material: Material, part: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """(SAMPLES,) of a recorded background, repeated with crossfades, or of coloured noise, and the name of its clip or ""."""
    clip = material.background(part, rng)
    slope = rng.uniform(0.5, 2.0)  # of the power over frequency: 1 pink, 2 brown
    noise = coloured_noise(SAMPLES, slope, rng)
    if clip is None or rng.random() < 0.3:
        return noise, ""
    sound = material.corpus.waveform(clip, SAMPLE_RATE)
    return looped(sound.astype(np.float64), SAMPLES) + 0.1 * rms(sound) / rms(noise) * noise, clip.name


def foreground(material: Material, clip: CorpusClip, rng: np.random.Generator, room: np.ndarray | None) -> np.ndarray:
    """(samples,) of an event: cut, repeated, a little faster or slower, in a room."""
    sound = material.corpus.waveform(clip, SAMPLE_RATE)
    sound = audio.resample(sound, round(SAMPLE_RATE * rng.uniform(*SPEED)), SAMPLE_RATE).astype(np.float64)
    parts = sounding_parts(sound)
    sound = sound[parts[0][0] : parts[-1][1]]
    longest = int(LONGEST_EVENT * SAMPLE_RATE)
    if len(sound) > longest:
        start = int(rng.integers(0, len(sound) - longest + 1))
        sound = sound[start : start + longest]
    sound = faded(sound)
    if len(sound) < SHORT_SOUND * SAMPLE_RATE:
        period = len(sound) + int(rng.uniform(0.05, 0.2) * SAMPLE_RATE)
        sound = np.concatenate(
            [np.pad(sound * rng.uniform(0.6, 1), (0, period - len(sound))) for _ in range(rng.integers(*REPETITIONS))]
        )
    if room is not None:
        direct = 10 ** (rng.uniform(*DIRECT_DB) / 20)
        wet = convolved(sound, room)
        sound = np.pad(sound, (0, len(wet) - len(sound))) * direct + wet * rms(sound) / rms(wet)
    return sound


def sounding_parts(waveform: np.ndarray) -> list[tuple[int, int]]:
    """Where (samples,) sounds, in samples from and to, at least one part; pauses below `GAP_SECONDS` are bridged."""
    count = -(-len(waveform) // FRAME)
    power = np.square(np.pad(waveform, (0, count * FRAME - len(waveform)))).reshape(count, FRAME).mean(1)
    sounding = power >= power.max() * 10 ** (-RANGE_DB / 10)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sounding, [0]]))).reshape(-1, 2) * FRAME
    parts = [list(edges[0])]
    for start, stop in edges[1:]:
        if start - parts[-1][1] < GAP_SECONDS * SAMPLE_RATE:
            parts[-1][1] = stop
        else:
            parts.append([start, stop])
    long = [part for part in parts if part[1] - part[0] >= SHORTEST_PART * SAMPLE_RATE]
    return [(int(start), int(min(stop, len(waveform)))) for start, stop in long or parts]


def impulse_response(rng: np.random.Generator) -> np.ndarray:
    """Reverberation of a random room: noise that decays by 60 dB in its reverberation time."""
    seconds = rng.uniform(*ROOM_SECONDS)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with frequency ** slope."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.arange(len(spectrum)), 20)  # flat below 2 Hz, of 10 s
    return np.fft.irfft(spectrum / frequency ** (slope / 2), samples)


def looped(sound: np.ndarray, samples: int) -> np.ndarray:
    """Repeat a sound to a length; its ends are crossfaded with equal power."""
    overlap = min(len(sound) // 4, SAMPLE_RATE // 2)
    fade = np.sqrt(np.linspace(0, 1, overlap))
    sound = sound.copy()
    sound[:overlap] *= fade
    sound[len(sound) - overlap :] *= fade[::-1]
    step = len(sound) - overlap
    result = np.zeros(samples + 2 * len(sound))
    for start in range(0, samples + overlap, step):
        result[start : start + len(sound)] += sound
    return result[overlap : overlap + samples]


def faded(sound: np.ndarray) -> np.ndarray:
    """Fade in and out, against clicks."""
    length = min(int(FADE_SECONDS * SAMPLE_RATE), len(sound) // 2)
    fade = np.linspace(0, 1, length)
    gain = np.ones(len(sound))
    gain[:length] = fade
    gain[len(sound) - length :] = fade[::-1]
    return sound * gain


def convolved(sound: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Full convolution of two signals."""
    length = len(sound) + len(response) - 1
    size = 1 << (length - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[:length]


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform)))) + 1e-12
