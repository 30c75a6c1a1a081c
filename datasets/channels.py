"""From the channels of a recording to one: a single rule for tagging, embedding, training and preparation.

One channel stays as it is. Two, and any number not named here, are averaged. Recordings of 5, 6 and 8 channels are taken for 5.0,
5.1 and 7.1 in the order of wav files (front left and right, centre, low frequencies, back left and right, side left and right) and
mixed with the weights of ITU-R BS.775-4, annex 4: a side is front + 0.707 centre + 0.707 of each surround channel, low frequencies
are left out, and the two sides are averaged. The weights are divided by their sum, so full scale stays within [-1, 1].

Channels may cancel each other, such as stereo with one plug turned round. Where a mix loses more than 12 dB against the mean power
of its channels (with N channels 12 dB + 10 log10(N / 2), as those without anything in common lose 10 log10(N) already), the loudest
channel takes its place. This is decided for each 10 s from where reading begins, so it does not depend on the size of blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from numbers import Integral

import numpy as np

from datasets.decoding.errors import AudioError, Report
from models.errors import UserError

STRETCH_SECONDS = 10
MAX_STRETCH = 1 << 24  # values held of a stretch (64 MB), which is shorter with many channels or a very high rate
MAX_LOSS = 10**1.2  # 12 dB, as a ratio of powers
SILENCE = 1e-9  # mean power, -90 dB: the last bit of 16
MAX_PEAK = 100.0  # 40 dB above full scale: no recording is, but integers that were turned into floating point are
INTEGER_SCALES = (1 << 15, 1 << 23, 1 << 31)  # full scale of 16, 24 and 32 bits

_WEIGHTS = {  # channels: of FL FR FC (LFE) BL BR (SL SR); ITU-R BS.775-4
    5: (0.5, 0.5, 0.5**0.5, 0.5**1.5, 0.5**1.5),
    6: (0.5, 0.5, 0.5**0.5, 0.0, 0.5**1.5, 0.5**1.5),
    8: (0.5, 0.5, 0.5**0.5, 0.0, 0.5**1.5, 0.5**1.5, 0.5**1.5, 0.5**1.5),
}


def mono(
    blocks: Iterable[np.ndarray], rate: int, name: str, *, channel: int | None = None, warnings: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Turn blocks of (samples, channels) floating point at `rate` Hz, one or more, into blocks of (samples,) float32.

    `channel`, from 1, takes that one alone. A warning that channels cancel goes to `warnings` (None: it is logged). Raises
    AudioError for NaN, infinity, samples at the scale of integers and a channel that is not there; it calls the recording `name`.
    """
    blocks = iter(blocks)
    first = next(blocks)
    count = first.shape[1]
    blocks = chain([first], blocks)
    if channel is not None or count == 1:
        yield from (np.ascontiguousarray(mix(block, name, channel)) for block in blocks)
    else:
        length = max(1, min(STRETCH_SECONDS * rate, MAX_STRETCH // count))
        stretches = _stretches((checked(block, name) for block in blocks), length)
        yield from _mixed(stretches, Report(name, warnings=warnings))


def check_channel(channel: int, count: int | None = None, name: str = "") -> None:
    """Raise UserError for a number that no channel has, and AudioError for one that a recording of `count` channels has not."""
    if not isinstance(channel, Integral) or isinstance(channel, bool) or channel < 1:
        raise UserError(f"channel is {channel!r}; it must be a whole number; the first channel is 1")
    if count is not None and channel > count:
        has = "1 channel" if count == 1 else f"{count} channels"
        raise AudioError(f"{name} has {has}, so no channel {channel}; choose one that it has")


def checked(samples: np.ndarray, name: str) -> np.ndarray:
    """Return floating-point samples as float32; AudioError for NaN, infinity and peaks far above full scale."""
    low, high = float(samples.min()), float(samples.max())  # NaN if one of them is
    if not (-MAX_PEAK <= low and high <= MAX_PEAK):
        if not np.isfinite([low, high]).all():
            raise AudioError(f"{name} holds NaN or infinite samples; convert it again or leave it out")
        peak = max(-low, high)
        scale = next((scale for scale in INTEGER_SCALES if peak <= scale), None)
        division = f" (then divide them by {scale})" if scale else ""
        raise AudioError(
            f"{name} has samples of {peak:.3g}, but full scale is 1; it is damaged, or holds integers that were turned into "
            f"floating point{division}; convert it again or leave it out"
        )
    return samples.astype(np.float32, copy=False)


def mix(block: np.ndarray, name: str, channel: int | None = None) -> np.ndarray:
    """Turn (samples, channels) floating point into (samples,) float32 as `mono` does, but whether its channels cancel or not.

    That is for live sound, which cannot wait.
    """
    if channel is not None:
        check_channel(channel, block.shape[1], name)
        block = block[:, channel - 1 : channel]
    return _downmix(checked(block, name)) if len(block) else np.zeros(0, np.float32)


def _downmix(samples: np.ndarray) -> np.ndarray:
    """Mix (samples, channels) float32 to (samples,)."""
    count = samples.shape[1]
    weights = np.array(_WEIGHTS.get(count, [1] * count), np.float32)
    return samples[:, 0] if count == 1 else samples @ (weights / weights.sum())  # mean(axis=1): ten times slower


def _stretches(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Cut blocks into pieces of `length` samples, the last of which may be shorter."""
    held: list[np.ndarray] = []
    missing = length
    for block in blocks:
        while len(block) >= missing:
            yield np.concatenate([*held, block[:missing]]) if held else block[:missing]
            held, block, missing = [], block[missing:], length
        if len(block):
            held.append(block)
            missing -= len(block)
    if held:
        yield np.concatenate(held)


def _mixed(stretches: Iterable[np.ndarray], report: Report) -> Iterator[np.ndarray]:
    """Mix each stretch, or take its loudest channel where the mix cancels."""
    reported = False
    for stretch in stretches:
        mixed = _downmix(stretch)
        loudest = loudest_if_lost(stretch, mixed)
        if loudest is None:
            yield mixed
            continue
        if not reported:
            report(f"has channels that cancel when mixed; the loudest is taken alone where they do, at first channel {loudest + 1}")
            reported = True
        yield stretch[:, loudest].copy()


def loudest_if_lost(stretch: np.ndarray, mixed: np.ndarray) -> int | None:
    """Return the index of the loudest channel if the mix loses too much, else None."""
    samples, count = stretch.shape
    least = max(SILENCE * samples, MAX_LOSS * count / 2 * float(mixed @ mixed))  # powers are times the number of samples
    flat = stretch.reshape(-1)
    if flat @ flat <= least:  # all channels together, which is fast
        return None
    powers = np.array([column @ column for column in stretch.T])
    is_mixed = np.array(_WEIGHTS.get(count, [1] * count)) > 0
    if not powers[is_mixed].any():  # low frequencies are all there is
        is_mixed[:] = True
    return int(np.argmax(np.where(is_mixed, powers, 0))) if powers[is_mixed].mean() > least else None
