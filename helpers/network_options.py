"""Command-line options that describe a network and its front end."""

from __future__ import annotations

import argparse
from dataclasses import replace

from helpers import cli
from models import checkpoints
from models.building import check_argument, new_architecture
from models.config import (
    DY_BLOCKS,
    FAMILIES,
    FRAME_HEAD_TYPES,
    HEAD_TYPES,
    SEQUENCE_MODELS,
    UNAVAILABLE_SEQUENCE_MODELS,
    Architecture,
    DyMNArch,
    FrameWiseArch,
    MelConfig,
)
from models.errors import UserError

NUMBERS = ("context_ratio", "max_context_size", "min_context_size", "dyrelu_k", "dyconv_k")
SWITCHES = {"no_dyrelu": "dynamic ReLU", "no_dyconv": "dynamic convolution", "no_ca": "coordinate attention"}
TEMPERATURES = {
    "T_max": "temperature of the first epoch (30)",
    "T0_slope": "how much each epoch lowers it, down to 1 (1)",
    "T1_slope": "how much each epoch lowers it further, below 1 (0.02)",
    "T_min": "lowest temperature (1)",
}
NETWORK_OPTIONS = {"width_mult": "model_width"} | {  # field of an architecture -> option, of a script that has it
    field: field
    for field in (
        "head_type", "se_dims", "strides", "reduced_tail", "dilated", "num_classes", "use_dy_blocks",
        *NUMBERS, *SWITCHES, *TEMPERATURES, "sequence_model", "sequence_size",
    )
}  # fmt: skip
FRONT_END_OPTIONS = ("sample_rate", "win_length", "hop_size", "n_fft", "n_mels", "fmin", "fmax")  # fields of a MelConfig


def add_network_options(parser: argparse.ArgumentParser, arch: str | None = None) -> None:
    """Options that describe a network, of the family `arch` unless they say otherwise; unset ones are None."""
    group = parser.add_argument_group("network")
    otherwise = "" if arch else " (mn, MobileNetV3, unless a checkpoint says otherwise)"
    group.add_argument("--arch", choices=FAMILIES, default=arch, help=f"family of networks{otherwise}")
    group.add_argument("--model_width", type=cli.positive_float, help="width multiplier (1.0 unless a checkpoint says otherwise)")
    group.add_argument(
        "--head_type", choices=HEAD_TYPES + FRAME_HEAD_TYPES,
        help="classification head (mlp, or linear with --arch fmn, unless a checkpoint says otherwise)",
    )  # fmt: skip
    group.add_argument(
        "--se_dims", help="axes of squeeze-and-excitation: letters out of cft, or none (c unless a checkpoint says otherwise)"
    )
    _add_dynamic_options(parser)
    group = parser.add_argument_group("frame-wise network (--arch fmn; a checkpoint brings its own)")
    choices = (*SEQUENCE_MODELS, *UNAVAILABLE_SEQUENCE_MODELS)
    group.add_argument("--sequence_model", choices=choices, help="between backbone and heads (none)")
    group.add_argument("--sequence_size", type=cli.positive_int, help="size of the sequence model (256)")


def _add_dynamic_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("dynamic network (--arch dymn; a checkpoint brings its own)")
    group.add_argument("--use_dy_blocks", choices=DY_BLOCKS, help="all blocks, or those that have squeeze-and-excitation in an mn")
    for name in NUMBERS:
        group.add_argument(f"--{name}", type=cli.positive_int, help=f"{name.replace('_', ' ')} (default as in the paper)")
    for name, part in SWITCHES.items():
        group.add_argument(f"--{name}", action="store_const", const=True, help=f"without {part}")


def add_temperature_options(parser: argparse.ArgumentParser) -> None:
    """Options of the temperature of dynamic convolutions, which a training lowers; unset ones are None."""
    group = parser.add_argument_group("temperature of dynamic convolutions (--arch dymn)")
    for name, meaning in TEMPERATURES.items():
        group.add_argument(f"--{name}", type=cli.non_negative_float, help=meaning)
    group.add_argument(
        "--pretrain_final_temp", type=cli.positive_float, help="where to start with --pretrained_name (that of the checkpoint)"
    )


def check_temperature_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a message where an option of the temperature belongs to something that is missing."""
    if args.pretrain_final_temp and not args.pretrained_name:
        parser.error("--pretrain_final_temp replaces the temperature of --pretrained_name; without one, give --T_max")


def add_architecture_options(parser: argparse.ArgumentParser) -> None:
    """Options that describe any network of this family, for analyses; unset ones are None."""
    add_network_options(parser)
    group = parser.add_argument_group("network, further")
    group.add_argument(
        "--strides", type=int, choices=(1, 2), nargs=4, metavar="STRIDE",
        help="strides of blocks 2, 4, 7 and 13, each 1 or 2 (2 2 2 2 unless a checkpoint says otherwise)",
    )  # fmt: skip
    group.add_argument("--reduced_tail", action="store_const", const=True, help="half the channels in the last blocks")
    group.add_argument("--dilated", action="store_const", const=True, help="dilation instead of a stride in the last blocks")
    group.add_argument("--num_classes", type=cli.positive_int, help="number of classes (527 unless a checkpoint says otherwise)")


def add_front_end_options(parser: argparse.ArgumentParser) -> None:
    """Options of the log-mel front end in evaluation mode; unset ones are None and follow the checkpoint or the defaults."""
    group = parser.add_argument_group("front end (a checkpoint brings its own)")
    group.add_argument("--sample_rate", "--resample_rate", type=cli.positive_int, help="sample rate in Hz (32000)")
    group.add_argument("--win_length", "--window_size", type=cli.positive_int, help="STFT window in samples (800)")
    group.add_argument("--hop_size", type=cli.positive_int, help="STFT hop in samples (320)")
    group.add_argument("--n_fft", type=cli.positive_int, help="length of the Fourier transform in samples (1024)")
    group.add_argument("--n_mels", type=cli.positive_int, help="number of mel bands (128)")
    group.add_argument("--fmin", type=cli.non_negative_float, help="lower edge of the mel bands in Hz (0)")
    group.add_argument("--fmax", type=cli.positive_float, help="upper edge of the mel bands in Hz (half the rate - 1000)")


def front_end(args: argparse.Namespace, base: MelConfig | None = None) -> MelConfig:
    """Return `base` (default: the standard front end) with what the options set explicitly."""
    given = {name: value for name in FRONT_END_OPTIONS if (value := getattr(args, name)) is not None}
    base = base or MelConfig()
    if given.get("sample_rate", base.sample_rate) != base.sample_rate:
        given.setdefault("fmax", None)  # follows the rate
    return replace(base, **given)


def given_fields(args: argparse.Namespace) -> dict[str, object]:
    """Return the fields of an architecture that options set."""
    given = {field: getattr(args, option, None) for field, option in NETWORK_OPTIONS.items()}
    return {field: tuple(value) if isinstance(value, list) else value for field, value in given.items() if value is not None}


def as_option(field: str, value: object) -> str:
    """Return how the value of a field is given on the command line."""
    option = "--pretrain_final_temp" if field == "temperature" else f"--{NETWORK_OPTIONS.get(field, field)}"
    values = value if isinstance(value, tuple) else () if value is True else (value,)
    return " ".join([option, *map(str, values)])


def options_of(arch: Architecture) -> list[object]:
    """Return the options of `add_network_options` that describe a network's architecture."""
    options: list[object] = ["--model_width", arch.width_mult, "--head_type", arch.head_type, "--se_dims", arch.se_dims]
    if isinstance(arch, DyMNArch):
        options += ["--arch", arch.family, "--use_dy_blocks", arch.use_dy_blocks]
        options += [part for name in NUMBERS for part in (f"--{name}", getattr(arch, name))]
        options += [f"--{name}" for name in SWITCHES if getattr(arch, name)]
    if isinstance(arch, FrameWiseArch):
        options += ["--arch", arch.family, "--sequence_model", arch.sequence_model]
        options += ["--sequence_size", arch.sequence_size] if arch.sequence_size else []
    return options


def chosen_family(args: argparse.Namespace) -> type[Architecture]:
    return FAMILIES[args.arch or "mn"]


def check_family(arch: Architecture, args: argparse.Namespace, name: str) -> None:
    """Raise UserError if `--arch` contradicts a model."""
    if args.arch not in (None, arch.family):
        raise UserError(f"--arch {args.arch} contradicts {name}, which has {arch.family}; leave it out")


def described_model(name: str | None, args: argparse.Namespace) -> tuple[Architecture, MelConfig]:
    """Return architecture and front end of a named model or, without a name, of the options; nothing is downloaded.

    A network given by options is sized for clips of 10 seconds where squeeze-and-excitation over time needs a size.
    An option that contradicts the named model is a UserError.
    """
    given = given_fields(args)
    if name is None:
        arch = new_architecture(chosen_family(args), given, as_option)
        mel = front_end(args, arch.default_mel)
        return arch.sized_for(mel.n_mels, mel.frames(10 * mel.sample_rate)), mel
    arch, mel = checkpoints.architecture(name)
    check_family(arch, args, name)
    for field, value in given.items():
        check_argument(arch, field, value, name, as_option)
    if front_end(args, mel) != mel:
        raise UserError(f"the front-end options contradict {name}, which has {mel}; leave them out")
    return arch, mel
