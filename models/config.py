"""What it takes to use a checkpoint: the network's architecture and the front end it was trained with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from models.errors import UserError

HEAD_TYPES = ("mlp", "fully_convolutional", "multihead_attention_pooling")
SE_AGGREGATIONS = ("max", "avg", "add", "min")
POOLINGS = ("mean", "max", "both")  # of embeddings


@dataclass(frozen=True)
class Arch:
    """Architecture of a MobileNetV3 (Howard et al., ICCV 2019, Large; Schmid et al., ICASSP 2023).

    `input_dim_f` (mel bands) and `input_dim_t` (frames) size the squeeze-and-excitation layers that act on frequency or time;
    with `se_dims="c"` or `"none"` any input size works. With 0 classes the network has no head.
    """

    num_classes: int = 527
    width_mult: float = 1.0
    reduced_tail: bool = False
    dilated: bool = False
    strides: tuple[int, int, int, int] = (2, 2, 2, 2)
    head_type: str = "mlp"
    multihead_attention_heads: int = 4
    input_dim_f: int = 128
    input_dim_t: int = 1000
    se_dims: str = "c"
    se_agg: str = "max"
    se_r: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))
        if not 0 < self.width_mult < float("inf"):
            raise UserError(f"width_mult must be a number above 0, not {self.width_mult}")
        if len(self.strides) != 4 or not all(stride in (1, 2) for stride in self.strides):
            raise UserError(f"strides must be four numbers, each 1 or 2, not {self.strides}")
        if self.head_type not in HEAD_TYPES:
            raise UserError(f"unknown head_type {self.head_type!r}; allowed: {', '.join(HEAD_TYPES)}")
        letters = set(self.se_dims)
        if self.se_dims != "none" and not (letters and letters <= set("cft") and len(letters) == len(self.se_dims)):
            raise UserError(f"se_dims must be 'none' or a combination of the letters c, f and t, not {self.se_dims!r}")
        if self.se_agg not in SE_AGGREGATIONS:
            raise UserError(f"unknown se_agg {self.se_agg!r}; allowed: {', '.join(SE_AGGREGATIONS)}")
        if self.num_classes < 0:
            raise UserError(f"num_classes must be at least 0 (no head), not {self.num_classes}")
        for name in ("multihead_attention_heads", "input_dim_f", "input_dim_t", "se_r"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class MelConfig:
    """The log-mel front end in evaluation mode: rates and edges in Hz, window, hop and transform in samples.

    `fmax` None means sample_rate // 2 - 1000, the upper edge of all released checkpoints (15 kHz at 32 kHz).
    """

    n_mels: int = 128
    sample_rate: int = 32000
    win_length: int = 800
    hop_size: int = 320
    n_fft: int = 1024
    fmin: float = 0.0
    fmax: float | None = None

    def __post_init__(self) -> None:
        if self.fmax is None:
            object.__setattr__(self, "fmax", float(self.sample_rate // 2 - 1000))
        for name in ("n_mels", "sample_rate", "win_length", "hop_size", "n_fft"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
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


def to_plain(config: Arch | MelConfig) -> dict[str, Any]:
    """Return the fields as a dict of numbers, strings and lists, fit for a checkpoint or JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def from_plain(cls: type[Arch] | type[MelConfig], values: dict[str, Any]) -> Arch | MelConfig:
    """Build a configuration from `to_plain`'s dict; unknown or missing fields are a `UserError`."""
    names = {field.name for field in fields(cls)}
    if set(values) != names:
        raise UserError(f"{cls.__name__} needs the fields {sorted(names)}, not {sorted(values)}")
    return cls(**values)
