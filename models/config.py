"""What it takes to use a checkpoint: the network's architecture and the front end it was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from models.errors import UserError

if TYPE_CHECKING:
    from models.base import TaggingNetwork

HEAD_TYPES = ("mlp", "fully_convolutional", "multihead_attention_pooling")
SE_AGGREGATIONS = ("max", "avg", "add", "min")
DY_BLOCKS = ("all", "replace_se")
POOLINGS = ("mean", "max", "both")  # of embeddings

# From and to. Far beyond what is in use; more is a damaged file or a mistake that would fill the memory.
ARCH_LIMITS = {
    "num_classes": (0, 100_000),  # 0: no head
    "multihead_attention_heads": (1, 64),
    "input_dim_f": (1, 4096),
    "input_dim_t": (1, 100_000),
    "se_r": (1, 1024),
}
DYMN_LIMITS = {
    "num_classes": (0, 100_000),
    "context_ratio": (1, 1024),
    "min_context_size": (1, 4096),
    "max_context_size": (1, 4096),
    "dyrelu_k": (1, 64),
    "dyconv_k": (1, 64),
}
MEL_LIMITS = {
    "n_mels": (1, 4096),
    "sample_rate": (1, 768_000),
    "hop_size": (1, 1 << 16),
    "n_fft": (1, 1 << 14),
    "win_length": (1, 1 << 14),
}
MAX_FILTERBANK = 1 << 23  # bands times samples of a transform
MAX_WIDTH = 10.0


class Architecture:
    """Architecture of a network: each family of networks has a subclass, a frozen dataclass that says all that shapes the weights.

    A family is chosen by its subclass alone: `build` makes the network. `FAMILIES` lists them by name, for checkpoints and options.
    """

    family: ClassVar[str]
    # Attributes of all families; where a family leaves no choice they are constants of the class.
    num_classes: ClassVar[int]
    width_mult: ClassVar[float]
    strides: ClassVar[tuple[int, int, int, int]]
    head_type: ClassVar[str]
    se_dims: ClassVar[str]
    reduced_tail: ClassVar[bool]
    dilated: ClassVar[bool]
    input_dim_f: ClassVar[int]
    free_fields: ClassVar[tuple[str, ...]] = ()  # which no weights depend on

    def build(self, *args: Any, **kwargs: Any) -> TaggingNetwork:
        """Build the network with random weights; the arguments are those of `TaggingNetwork` behind the first."""
        raise NotImplementedError

    def sized_for(self, n_mels: int, frames: int | None = None) -> Architecture:
        """Return the architecture for inputs of so many mel bands and frames, which few layers depend on."""
        return self

    def as_start(self, **changes: float) -> Architecture:
        """Return the architecture of a new training from these weights, with changes of fields in `free_fields`."""
        return self


@dataclass(frozen=True)
class Arch(Architecture):
    """Architecture of a MobileNetV3 (Howard et al., ICCV 2019, Large; Schmid et al., ICASSP 2023).

    `input_dim_f` (mel bands) and `input_dim_t` (frames) size the squeeze-and-excitation layers that act on frequency or time;
    with `se_dims="c"` or `"none"` any input size works. With 0 classes the network has no head.
    """

    family: ClassVar[str] = "mn"
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
        _check_whole_numbers(self, ARCH_LIMITS)
        _check_width_and_strides(self)
        _check_switches(self, ("reduced_tail", "dilated"))
        if self.head_type not in HEAD_TYPES:
            raise UserError(f"unknown head_type {self.head_type!r}; allowed: {', '.join(HEAD_TYPES)}")
        letters = set(self.se_dims) if isinstance(self.se_dims, str) else set()
        if self.se_dims != "none" and not (letters and letters <= set("cft") and len(letters) == len(self.se_dims)):
            raise UserError(f"se_dims must be 'none' or a combination of the letters c, f and t, not {self.se_dims!r}")
        if self.se_agg not in SE_AGGREGATIONS:
            raise UserError(f"unknown se_agg {self.se_agg!r}; allowed: {', '.join(SE_AGGREGATIONS)}")

    def build(self, *args: Any, **kwargs: Any) -> TaggingNetwork:
        from models.network import MobileNetV3

        return MobileNetV3(self, *args, **kwargs)

    def sized_for(self, n_mels: int, frames: int | None = None) -> Arch:
        return replace(self, input_dim_f=n_mels, input_dim_t=self.input_dim_t if frames is None else frames)


@dataclass(frozen=True)
class DyMNArch(Architecture):
    """Architecture of a dynamic MobileNet (Schmid et al., TASLP 2024); any input size works.

    A block's context has `expanded channels // context_ratio` values, within the limits times the width. `dyconv_k` kernels are
    mixed in each dynamic convolution, `dyrelu_k` linear functions compete in each dynamic ReLU. `no_dyconv`, `no_dyrelu` and
    `no_ca` leave out dynamic convolution, dynamic ReLU and coordinate attention. With `use_dy_blocks="replace_se"` only the blocks
    that have squeeze-and-excitation in a MobileNetV3 are dynamic. With 0 classes the network has no head.

    `temperature`, by default `T_max`, is the one at which the weights are to be used; a training lowers it, see `temperature_at`.
    """

    family: ClassVar[str] = "dymn"
    head_type: ClassVar[str] = "mlp"
    se_dims: ClassVar[str] = "none"
    reduced_tail: ClassVar[bool] = False
    dilated: ClassVar[bool] = False
    input_dim_f: ClassVar[int] = 128
    free_fields: ClassVar[tuple[str, ...]] = ("temperature", "T0_slope", "T1_slope", "T_min")
    num_classes: int = 527
    width_mult: float = 1.0
    strides: tuple[int, int, int, int] = (2, 2, 2, 2)
    context_ratio: int = 4
    max_context_size: int = 128
    min_context_size: int = 32
    dyrelu_k: int = 2
    no_dyrelu: bool = False
    dyconv_k: int = 4
    no_dyconv: bool = False
    T_max: float = 30.0
    T0_slope: float = 1.0
    T1_slope: float = 0.02
    T_min: float = 1.0
    no_ca: bool = False
    use_dy_blocks: str = "all"
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is None:
            object.__setattr__(self, "temperature", self.T_max)
        _check_whole_numbers(self, DYMN_LIMITS)
        _check_width_and_strides(self)
        _check_switches(self, ("no_dyrelu", "no_dyconv", "no_ca"))
        if self.min_context_size > self.max_context_size:
            raise UserError(
                f"min_context_size ({self.min_context_size}) must not exceed max_context_size ({self.max_context_size})"
            )
        for name in ("T_max", "T0_slope", "T_min", "temperature"):
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise UserError(f"{name} must be a number above 0, not {getattr(self, name)!r}")
        if not is_number(self.T1_slope) or self.T1_slope < 0:
            raise UserError(f"T1_slope must be a number of at least 0, not {self.T1_slope!r}")
        if self.use_dy_blocks not in DY_BLOCKS:
            raise UserError(f"unknown use_dy_blocks {self.use_dy_blocks!r}; allowed: {', '.join(DY_BLOCKS)}")

    def build(self, *args: Any, **kwargs: Any) -> TaggingNetwork:
        from models.DyMN import DyMN

        return DyMN(self, *args, **kwargs)

    def as_start(self, **changes: float) -> DyMNArch:
        """Return the architecture of a new training, which lowers the temperature from where these weights have it."""
        changes = {"temperature": self.temperature} | changes
        return replace(self, T_max=changes["temperature"], **changes)

    def temperature_at(self, epoch: int) -> float:
        """Return the temperature in `epoch` (from 0) of a training: from T_max down to 1, then slowly on, never below T_min."""
        steep = self.T_max - self.T0_slope * epoch
        slow = 1 + self.T1_slope * ((self.T_max - 1) / self.T0_slope - epoch)
        return max(steep, slow, self.T_min)


FAMILIES: dict[str, type[Architecture]] = {arch.family: arch for arch in (Arch, DyMNArch)}


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
        _check_whole_numbers(self, MEL_LIMITS)
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


def _check_width_and_strides(arch: Architecture) -> None:
    if not is_number(arch.width_mult) or not 0 < arch.width_mult <= MAX_WIDTH:
        raise UserError(f"width_mult must be a number above 0, {MAX_WIDTH:g} at most, not {arch.width_mult!r}")
    strides = tuple(arch.strides) if isinstance(arch.strides, (list, tuple)) else (arch.strides,)
    if len(strides) != 4 or not all(is_whole(stride) and stride in (1, 2) for stride in strides):
        raise UserError(f"strides must be four numbers, each 1 or 2, not {arch.strides!r}")
    object.__setattr__(arch, "strides", strides)


def _check_switches(arch: Architecture, names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(getattr(arch, name), bool):
            raise UserError(f"{name} must be True or False, not {getattr(arch, name)!r}")


def _check_whole_numbers(config: Architecture | MelConfig, limits: Mapping[str, tuple[int, int]]) -> None:
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not is_whole(value) or not low <= value <= high:
            raise UserError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def to_plain(config: Architecture | MelConfig) -> dict[str, Any]:
    """Return the fields as a dict of numbers, strings and lists, fit for a checkpoint or JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def from_plain(cls: type[Architecture] | type[MelConfig], values: dict[str, Any]) -> Architecture | MelConfig:
    """Build a configuration from `to_plain`'s dict; unknown or missing fields are a `UserError`."""
    names = {field.name for field in fields(cls)}
    if not isinstance(values, Mapping) or set(values) != names:
        given = sorted(map(str, values)) if isinstance(values, Mapping) else values
        raise UserError(f"{cls.__name__} needs the fields {sorted(names)}, not {given!r:.500}")
    return cls(**values)
