"""How the project reads a recording, compared with what a full decoder finds in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr

from datasets import audio
from models.errors import UserError
from studies.recordings.reference import Found, full_decoding

LOSS = 0.1  # seconds; more than that must not be missing in silence
SAME_LENGTH = 0.05  # seconds
SAME_SOUND = 0.999  # correlation
_LEVEL_SECONDS = 0.05  # of sound with one level
SEARCHED = 0.05  # seconds; decoders differ in how much of an encoder's delay they remove

WHOLE, WARNED, REFUSED, LOST = "whole", "warned", "refused", "lost"


@dataclass(frozen=True)
class Reading:
    """What came of reading: sound and warnings, or an error."""

    found: Found | None
    warnings: list[str] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Verdict:
    outcome: str  # WHOLE, WARNED, REFUSED or LOST
    reason: str


def read(source: str | Path | bytes | BinaryIO, name: str | None = None) -> Reading:
    """Read a recording with the project's decoders; other exceptions than its own pass."""
    warnings: list[str] = []
    try:
        waveform, rate = audio.decode(source, warnings=warnings, name=name, channel=1)
    except (UserError, FileNotFoundError) as error:
        return Reading(None, warnings, str(error))
    return Reading(Found(waveform, rate), warnings)


def judge(reading: Reading, content: bytes, *, seconds: float = 0.0, same_sound: bool = False) -> Verdict:
    """Say whether sound is lost in silence: of what the full decoder finds, or of the `seconds` known to be there.

    With `same_sound`, for undamaged recordings, length and samples must agree with the full decoder's.
    """
    if reading.error:
        return Verdict(REFUSED, reading.error)
    if reading.warnings:
        return Verdict(WARNED, "; ".join(reading.warnings))
    found, expected = reading.found, full_decoding(content)
    present = max(seconds, expected.seconds if expected else 0.0)
    lengths = f"{found.seconds:.2f} of {present:.2f} s"
    if found.seconds < present - (SAME_LENGTH if same_sound else LOSS):
        return Verdict(LOST, lengths)
    if expected is None:
        return Verdict(WHOLE, f"{lengths}; the full decoder finds none")
    if (silent := silenced(found, expected)) > LOSS:
        return Verdict(LOST, f"{lengths}, {silent:.1f} s of them silent")
    if not same_sound or present - expected.seconds > SAME_LENGTH:
        return Verdict(WHOLE, lengths)
    if found.seconds > expected.seconds + SAME_LENGTH:
        return Verdict(LOST, f"{lengths}, too much")
    similarity = correlation(found, expected)
    return Verdict(WHOLE if similarity > SAME_SOUND else LOST, f"{lengths}, correlation {similarity:.5f}")


def silenced(found: Found, expected: Found) -> float:
    """Return the seconds in which one sound is silent, and another is not, at the same place."""
    one, other = _levels(found), _levels(expected)
    count = min(len(one), len(other))
    return _LEVEL_SECONDS * int(np.sum((one[:count] < 0.001) & (other[:count] > 0.01)))


def _levels(sound: Found) -> np.ndarray:
    size = max(round(_LEVEL_SECONDS * sound.rate), 1)
    count = len(sound.samples) // size
    return np.abs(np.nan_to_num(sound.samples[: count * size])).reshape(count, size).max(axis=1, initial=0.0)


def correlation(one: Found, other: Found) -> float:
    """Return the highest correlation of two sounds over the shifts of up to `SEARCHED` seconds."""
    rate = max(one.rate, other.rate)  # at which shifts are fine enough
    first, second = (
        soxr.resample(sound.samples, sound.rate, rate) if sound.rate < rate else sound.samples for sound in (one, other)
    )
    count = min(len(first), len(second))
    size = 1 << (2 * count).bit_length()
    spectrum = np.fft.rfft(first[:count], size) * np.conj(np.fft.rfft(second[:count], size))
    reach = min(round(SEARCHED * rate), count - 1)
    products = np.fft.irfft(spectrum, size)
    shift = max(range(-reach, reach + 1), key=lambda shift: products[shift])
    ahead, behind = max(shift, 0), max(-shift, 0)
    first, second = first[ahead : count - behind], second[behind : count - ahead]
    if not first.any() and not second.any():
        return 1.0
    return float(np.corrcoef(first, second)[0, 1])
