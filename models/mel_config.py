"""The front end's configuration, and the checks of numbers that all configurations share. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from models.errors import UserError

# From and to. Far beyond what is in use; more is a damaged file or a mistake that would fill the memory.
MEL_LIMITS = {
    "n_mels": (1, 4096),
    "sample_rate": (1, 768_000),
    "hop_size": (1, 1 << 16),
    "n_fft": (1, 1 << 14),
    "win_length": (1, 1 << 14),
}
MAX_FILTERBANK = 1 << 23  # bands times samples of a transform


@dataclass(frozen=True)
class MelConfig:
    """The log-mel front end in evaluation mode: rates and edges in Hz, window, hop and transform in samples.

    `fmax` None means sample_rate // 2 - 1000, the upper edge of all released checkpoints (15 kHz at 32 kHz). The logarithm is that
    of the energy + 1e-5 or, with a `log_floor`, of the larger of the two.
    """

    optional_fields: ClassVar[tuple[str, ...]] = ("log_floor",)  # files without them have the default

    n_mels: int = 128
    sample_rate: int = 32000
    win_length: int = 800
    hop_size: int = 320
    n_fft: int = 1024
    fmin: float = 0.0
    fmax: float | None = None
    log_floor: float | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, MEL_LIMITS)
        if self.log_floor is not None and not (is_number(self.log_floor) and 1e-30 <= self.log_floor <= 1):
            raise UserError(f"log_floor must be a number from 1e-30 to 1, or None, not {self.log_floor!r}")
        if self.fmax is None:
            object.__setattr__(self, "fmax", float(self.sample_rate // 2 - 1000))
        for name in ("fmin", "fmax"):
            if not is_number(getattr(self, name)):
                raise UserError(f"{name} must be a number in Hz, not {getattr(self, name)!r}")
        if self.n_mels * self.n_fft > MAX_FILTERBANK:
            raise UserError(f"n_mels times n_fft must be at most {MAX_FILTERBANK}, not {self.n_mels} times {self.n_fft}")
        if self.n_fft % 2:
            raise UserError(f"n_fft must be even, not {self.n_fft}")
        if self.win_length > self.n_fft:
            raise UserError(f"win_length ({self.win_length}) must not exceed n_fft ({self.n_fft}), both in samples")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise UserError(
                f"band edges must satisfy 0 <= fmin < fmax <= sample_rate / 2 = {self.sample_rate / 2:g} Hz, "
                f"not fmin={self.fmin:g}, fmax={self.fmax:g}"
            )

    def frames(self, samples: int) -> int:
        """Return the number of spectrogram frames of a clip of `samples` samples; 10 s at the defaults give 1000."""
        return 1 + (max(samples, self.min_samples) - 1) // self.hop_size

    @property
    def min_samples(self) -> int:
        """Length in samples to which shorter clips are padded with zeros: reflect padding needs n_fft // 2 + 1 of them."""
        return self.n_fft // 2 + 2


def is_whole(value: object) -> bool:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf


def check_whole_numbers(config: object, limits: Mapping[str, tuple[int, int]]) -> None:
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not is_whole(value) or not low <= value <= high:
            raise UserError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
