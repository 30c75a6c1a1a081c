"""What it takes to use a checkpoint: the network's architecture and the front end it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from models.errors import UserError
from models.mel_config import MelConfig, check_whole_numbers, is_number, is_whole

if TYPE_CHECKING:
    from models.base import TaggingNetwork

HEAD_TYPES = ("mlp", "fully_convolutional", "multihead_attention_pooling")
SE_AGGREGATIONS = ("max", "avg", "add", "min")
DY_BLOCKS = ("all", "replace_se")
FRAME_HEAD_TYPES = ("linear", "attention")  # of frame-wise networks
SEQUENCE_MODELS = ("none", "tf", "gru", "hybrid")
UNAVAILABLE_SEQUENCE_MODELS = {"mamba": "mamba_ssm"}  # of the paper, without released weights: name -> package that they need
TRAINED_HEADS = ("strong", "weak", "both")
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
FRAME_WISE_LIMITS = {"num_classes": (0, 100_000)}
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
    default_mel: ClassVar[MelConfig] = MelConfig()

    def build(self, *args: Any, **kwargs: Any) -> TaggingNetwork:
        """Build the network with random weights; the arguments are those of `TaggingNetwork` behind the first."""
        raise NotImplementedError

    def sized_for(self, n_mels: int, frames: int | None = None) -> Architecture:
        """Return the architecture for inputs of so many mel bands and frames, which few layers depend on."""
        return self

    def with_classes(self, num_classes: int) -> Architecture:
        """Return the architecture with another number of classes, whose layers get random weights."""
        return replace(self, num_classes=num_classes)

    @classmethod
    def on_backbone(cls, other: Architecture, given: Mapping[str, Any]) -> Architecture | None:
        """Return the architecture, with the fields that are `given`, of a network that takes but the features of another one.

        None: it is the other network itself that is asked for.
        """
        return None

    def as_start(self, **changes: Any) -> Architecture:
        """Return the architecture of a new training from these weights, with changes of fields in `free_fields`."""
        return self

    def read_released(self, state: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
        """Return the architecture that a released state dict has in detail, and its tensors under the names of our network."""
        return self, dict(state)


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
        check_whole_numbers(self, ARCH_LIMITS)
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
        check_whole_numbers(self, DYMN_LIMITS)
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


@dataclass(frozen=True)
class FrameWiseArch(Architecture):
    """Architecture of a frame-wise MobileNet (Morocutti et al., EUSIPCO 2025): logits for each 40 ms.

    `num_classes` and `weak_classes` (None: the same) are those of the strong head, which scores frames, and of the weak head, which
    scores clips; with 0 classes there are no heads. `trained_heads` says which of them are of use: the clip's logits are those of
    the weak head or, where only the strong one is trained, the maxima over time of the frames'. `sequence_model`, of two layers of
    size `sequence_size` (None: 256), stands between backbone and heads; `sequence_heads` None is 8, but 4 for a tf of a size below
    128. `seq_len` None keeps the time axis as it is; 250 resamples that of any clip to so many steps, as the published code does.
    """

    family: ClassVar[str] = "fmn"
    strides: ClassVar[tuple[tuple[int, int], ...]] = (  # along frequency and time, of the 15 blocks
        (1, 1), (2, 2), (2, 1), (1, 1), (1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 1), (2, 1),
    )  # fmt: skip
    frames_per_step: ClassVar[int] = 4  # of the spectrogram: the stem has stride 2 too
    se_dims: ClassVar[str] = "c"
    reduced_tail: ClassVar[bool] = False
    dilated: ClassVar[bool] = False
    input_dim_f: ClassVar[int] = 128
    default_mel: ClassVar[MelConfig] = MelConfig(sample_rate=16000, win_length=400, hop_size=160, n_fft=512, log_floor=1e-7)
    free_fields: ClassVar[tuple[str, ...]] = ("trained_heads", "seq_len")
    num_classes: int = 447
    width_mult: float = 1.0
    sequence_model: str = "none"
    sequence_size: int | None = None
    sequence_heads: int | None = None
    head_type: str = "linear"
    weak_classes: int | None = None
    trained_heads: str = "strong"
    seq_len: int | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, FRAME_WISE_LIMITS)
        _check_width(self)
        if package := UNAVAILABLE_SEQUENCE_MODELS.get(self.sequence_model):
            raise UserError(
                f"sequence_model {self.sequence_model!r} needs the package {package}, which this project does not use, and has no "
                f"released weights; use {', '.join(SEQUENCE_MODELS)}"
            )
        for name, allowed in (
            ("sequence_model", SEQUENCE_MODELS),
            ("head_type", FRAME_HEAD_TYPES),
            ("trained_heads", TRAINED_HEADS),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        for name, high in (("weak_classes", 100_000), ("seq_len", 100_000)):
            value = getattr(self, name)
            if value is not None and not (is_whole(value) and 1 <= value <= high):
                raise UserError(f"{name} must be a whole number from 1 to {high}, or None, not {value!r}")
        self._set_sequence_model()
        if self.num_weak != self.num_classes and (self.head_type == "attention" or self.trained_heads != "strong"):
            raise UserError(f"weak_classes {self.weak_classes} must be num_classes, {self.num_classes}, where both heads are used")

    def _set_sequence_model(self) -> None:
        """Set what is not given of the sequence model's size; `UserError` for one that cannot be."""
        if self.sequence_model == "none":
            if self.sequence_size is not None or self.sequence_heads is not None:
                raise UserError("sequence_size and sequence_heads mean nothing without a sequence_model; leave them out")
            return
        size = 256 if self.sequence_size is None else self.sequence_size
        if not is_whole(size) or not 8 <= size <= 4096:
            raise UserError(f"sequence_size must be a whole number from 8 to 4096, not {size!r}")
        object.__setattr__(self, "sequence_size", size)
        if self.sequence_model == "gru":
            if self.sequence_heads is not None:
                raise UserError("sequence_heads means nothing to a gru; leave it out")
            return
        heads = self.sequence_heads
        if heads is None:
            heads = 4 if self.sequence_model == "tf" and size < 128 else 8
        multiple = 2 if self.sequence_model == "tf" else 1  # positions turn pairs of channels
        if not is_whole(heads) or heads < 1 or size % (multiple * heads):
            raise UserError(f"sequence_size {size} must be a multiple of {multiple} times sequence_heads, {heads!r}")
        object.__setattr__(self, "sequence_heads", heads)

    @property
    def num_weak(self) -> int:
        """Classes of the weak head."""
        return self.num_classes if self.weak_classes is None else self.weak_classes

    def build(self, *args: Any, **kwargs: Any) -> TaggingNetwork:
        from models.frame_wise import FrameWiseMobileNet

        return FrameWiseMobileNet(self, *args, **kwargs)

    def with_classes(self, num_classes: int) -> FrameWiseArch:
        return replace(self, num_classes=num_classes, weak_classes=None, trained_heads="strong")

    @classmethod
    def on_backbone(cls, other: Architecture, given: Mapping[str, Any]) -> FrameWiseArch | None:
        if isinstance(other, FrameWiseArch) and not (other.sequence_model == "none" and given.get("sequence_model")):
            return None
        if other.family == "dymn" or (other.se_dims, other.reduced_tail, other.dilated) != ("c", False, False):
            raise UserError(
                "a frame-wise network starts from a MobileNetV3 with se_dims 'c', neither dilated nor with a reduced tail"
            )
        if given.get("width_mult", other.width_mult) != other.width_mult:
            raise UserError(f"width_mult={given['width_mult']!r} contradicts the checkpoint, which has {other.width_mult}")
        return cls(**{"num_classes": other.num_classes, "width_mult": other.width_mult, **given})

    def as_start(self, **changes: Any) -> FrameWiseArch:
        return replace(self, **changes)

    def read_released(self, state: Mapping[str, Any]) -> tuple[FrameWiseArch, dict[str, Any]]:
        from models.frame_wise import read_released

        return read_released(self, state)


FAMILIES: dict[str, type[Architecture]] = {arch.family: arch for arch in (Arch, DyMNArch, FrameWiseArch)}


def _check_width(arch: Architecture) -> None:
    if not is_number(arch.width_mult) or not 0 < arch.width_mult <= MAX_WIDTH:
        raise UserError(f"width_mult must be a number above 0, {MAX_WIDTH:g} at most, not {arch.width_mult!r}")


def _check_width_and_strides(arch: Architecture) -> None:
    _check_width(arch)
    strides = tuple(arch.strides) if isinstance(arch.strides, (list, tuple)) else (arch.strides,)
    if len(strides) != 4 or not all(is_whole(stride) and stride in (1, 2) for stride in strides):
        raise UserError(f"strides must be four numbers, each 1 or 2, not {arch.strides!r}")
    object.__setattr__(arch, "strides", strides)


def _check_switches(arch: Architecture, names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(getattr(arch, name), bool):
            raise UserError(f"{name} must be True or False, not {getattr(arch, name)!r}")


def to_plain(config: Architecture | MelConfig) -> dict[str, Any]:
    """Return the fields as a dict of numbers, strings and lists, fit for a checkpoint or JSON; optional ones only where set."""
    optional = getattr(config, "optional_fields", ())
    values = {name: value for name, value in asdict(config).items() if name not in optional or value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def from_plain(cls: type[Architecture] | type[MelConfig], values: dict[str, Any]) -> Architecture | MelConfig:
    """Build a configuration from `to_plain`'s dict; unknown or missing fields are a `UserError`."""
    names = {field.name for field in fields(cls)}
    required = names - set(getattr(cls, "optional_fields", ()))
    if not isinstance(values, Mapping) or not required <= set(values) <= names:
        given = sorted(map(str, values)) if isinstance(values, Mapping) else values
        raise UserError(f"{cls.__name__} needs the fields {sorted(names)}, not {given!r:.500}")
    return cls(**values)
