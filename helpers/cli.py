"""What the command-line scripts share: option groups, the device, and how a user's mistake ends a program.

Importing this does not import torch, which inference without torch relies on; functions that need it import it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import tracking
from models.assets import AssetError
from models.config import HEAD_TYPES, Arch, MelConfig

if TYPE_CHECKING:
    import torch

PROJECT = ("benchmarks", "datasets", "helpers", "models", "studies")  # packages whose absence is our mistake, not the user's
NETWORK_OPTIONS = {"width_mult": "model_width"} | {  # field of an Arch -> option, of a script that has it
    field: field for field in ("head_type", "se_dims", "strides", "reduced_tail", "dilated", "num_classes")
}

logger = logging.getLogger(__name__)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's line breaks and names each default that is not None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def run(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a script's `main` and leave with its exit code; a user's mistake is one line on standard error and exit code 1.

    `python -X dev SCRIPT` shows the traceback instead.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no UTF-8
    try:
        code = main(None)
    except KeyboardInterrupt:
        code = 130
        print("interrupted", file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has seen enough, such as `| head`
        code = 128 + 13  # as a program that the signal ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in PROJECT or sys.flags.dev_mode:
            raise
        code = 1
        light = "; inference.py --backend onnx does without it" if package == "torch" else ""
        needed = "requirements-imagenet.txt" if package == "torchvision" else "requirements.txt"
        print(f"error: this needs {package}, which is not installed: pip install -r {needed}{light}", file=sys.stderr)
    except (ValueError, OSError, AssetError, *_out_of_memory()) as error:
        if sys.flags.dev_mode:
            raise
        code = 1
        who = f"process {os.environ['RANK']}: " if int(os.environ.get("RANK", "0")) else ""
        advice = "the GPU's memory is full, use a smaller --batch_size: " if isinstance(error, _out_of_memory()) else ""
        print(f"{who}error: {advice}{_one_line(error)}", file=sys.stderr)
    sys.exit(code)


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """Return torch's error of a full GPU, which nothing can have raised where torch is not imported."""
    return (sys.modules["torch"].OutOfMemoryError,) if "torch" in sys.modules else ()


def _one_line(error: BaseException) -> str:
    """Return an error's message; of one raised in a data loader's worker, the message without that process's traceback."""
    message = str(error).strip()
    if "Original Traceback" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())


def positive_int(text: str) -> int:
    """Parse an option that counts something."""
    return _parse(int, text, 1, "a whole number of at least 1")


def non_negative_int(text: str) -> int:
    """Parse an option that counts something, where 0 turns it off."""
    return _parse(int, text, 0, "a whole number of at least 0")


def positive_float(text: str) -> float:
    """Parse a length, rate or factor."""
    value = non_negative_float(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0, not 0")
    return value


def non_negative_float(text: str) -> float:
    """Parse a length, rate or factor, where 0 turns it off."""
    return _parse(float, text, 0, "a number of at least 0")


def unit_interval(text: str) -> float:
    """Parse a share."""
    value = non_negative_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value


def seed(text: str) -> int:
    """Parse the seed of a random generator."""
    value = non_negative_int(text)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"must be below 2^63, not {text!r}")
    return value


def absolute_path(text: str) -> Path:
    """Parse a path that a resumed run must find from any working directory."""
    return Path(text).expanduser().absolute()


def figure_path(text: str) -> Path:
    """Parse the path of a figure to be drawn."""
    if Path(text).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png, .pdf or .svg, not {text!r}")
    return Path(text)


def _parse(kind: type, text: str, lowest: int, meaning: str) -> Any:
    try:
        value = kind(text)
        if lowest <= value < float("inf"):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be {meaning}, not {text!r}")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Options that describe a network; unset ones are None."""
    group = parser.add_argument_group("network")
    group.add_argument("--model_width", type=positive_float, help="width multiplier (1.0 unless a checkpoint says otherwise)")
    group.add_argument("--head_type", choices=HEAD_TYPES, help="classification head (mlp unless a checkpoint says otherwise)")
    group.add_argument(
        "--se_dims", help="axes of squeeze-and-excitation: letters out of cft, or none (c unless a checkpoint says otherwise)"
    )


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
    group.add_argument("--num_classes", type=positive_int, help="number of classes (527 unless a checkpoint says otherwise)")


def add_front_end_options(parser: argparse.ArgumentParser) -> None:
    """Options of the log-mel front end in evaluation mode; unset ones are None and follow the checkpoint or the defaults."""
    group = parser.add_argument_group("front end (a checkpoint brings its own)")
    group.add_argument("--resample_rate", type=positive_int, help="sample rate in Hz (32000)")
    group.add_argument("--window_size", type=positive_int, help="STFT window in samples (800)")
    group.add_argument("--hop_size", type=positive_int, help="STFT hop in samples (320)")
    group.add_argument("--n_fft", type=positive_int, help="length of the Fourier transform in samples (1024)")
    group.add_argument("--n_mels", type=positive_int, help="number of mel bands (128)")
    group.add_argument("--fmin", type=non_negative_float, help="lower edge of the mel bands in Hz (0)")
    group.add_argument("--fmax", type=positive_float, help="upper edge of the mel bands in Hz (half the rate - 1000)")


def front_end(args: argparse.Namespace, base: MelConfig | None = None) -> MelConfig:
    """Return `base` (default: the standard front end) with what the options set explicitly."""
    options = {
        "sample_rate": args.resample_rate,
        "win_length": args.window_size,
        "hop_size": args.hop_size,
        "n_fft": args.n_fft,
        "n_mels": args.n_mels,
        "fmin": args.fmin,
        "fmax": args.fmax,
    }
    given = {name: value for name, value in options.items() if value is not None}
    base = base or MelConfig()
    if given.get("sample_rate", base.sample_rate) != base.sample_rate:
        given.setdefault("fmax", None)  # follows the rate
    return replace(base, **given)


def described_model(name: str | None, args: argparse.Namespace) -> tuple[Arch, MelConfig]:
    """Return architecture and front end of a named model or, without a name, of the options; nothing is downloaded.

    A network given by options is sized for clips of 10 seconds where squeeze-and-excitation over time needs a size.
    An option that contradicts the named model is a `ValueError`.
    """
    from helpers.macs import clip_frames
    from models import checkpoints

    given = {field: getattr(args, option, None) for field, option in NETWORK_OPTIONS.items()}
    given = {field: tuple(value) if isinstance(value, list) else value for field, value in given.items() if value is not None}
    if name is None:
        mel = front_end(args)
        return Arch(**given, input_dim_f=mel.n_mels, input_dim_t=clip_frames(mel)), mel
    arch, mel = checkpoints.architecture(name)
    for field, value in given.items():
        if value != (stored := getattr(arch, field)):
            raise ValueError(f"--{NETWORK_OPTIONS[field]} {value} contradicts {name}, which has {stored}; leave it out")
    if front_end(args, mel) != mel:
        raise ValueError(f"the front-end options contradict {name}, which has {mel}; leave them out")
    return arch, mel


def add_run_options(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """Options of every experiment: where and how it computes."""
    workers = min(12, os.cpu_count() or 1)
    group = parser.add_argument_group("computation")
    group.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    group.add_argument("--batch_size", type=positive_int, default=batch_size, help="clips in a batch of all processes")
    group.add_argument("--num_workers", type=non_negative_int, default=workers, help="processes that decode; 0: the script's own")
    group.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16"), help="of the network's forward pass (fp16 on CUDA, fp32 on the CPU)"
    )


def add_training_options(parser: argparse.ArgumentParser, *, experiment_name: str) -> None:
    """Options of every training: its folder, its seed, how a step is computed, how it goes on."""
    group = parser.add_argument_group("training run")
    group.add_argument("--experiment_name", default=experiment_name, help="name of the run's folder below runs/")
    group.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with the run in this folder, with its options")
    group.add_argument("--save_minutes", type=non_negative_float, default=10.0, help="minutes between savings within an epoch")
    group.add_argument("--seed", type=seed, default=0, help="seed of initialisation, sampling and augmentation")
    group.add_argument(
        "--accumulate", type=positive_int, default=1, metavar="PARTS",
        help="parts that a process cuts its batch into, one after the other, to save memory",
    )  # fmt: skip
    group.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    group.add_argument(
        "--wandb", choices=tracking.MODES, default="auto",
        help="where Weights & Biases keeps the run's metrics; auto: online if logged in, else in the run's folder",
    )  # fmt: skip


def add_schedule_options(
    parser: argparse.ArgumentParser,
    *,
    n_epochs: int,
    max_lr: float,
    warm_up_len: int,
    ramp_down_start: int,
    ramp_down_len: int,
    last_lr_value: float,
    weight_decay: float,
) -> None:
    """Options of the optimizer and of the schedule of its learning rate."""
    group = parser.add_argument_group("optimizer and schedule")
    group.add_argument("--n_epochs", type=positive_int, default=n_epochs, help="number of epochs")
    group.add_argument("--max_lr", "--lr", type=positive_float, default=max_lr, help="peak learning rate of Adam")
    group.add_argument("--weight_decay", type=non_negative_float, default=weight_decay, help="weight decay of Adam")
    group.add_argument("--warm_up_len", type=non_negative_int, default=warm_up_len, help="epochs of the exponential ramp up")
    group.add_argument("--ramp_down_start", type=non_negative_int, default=ramp_down_start, help="last epoch at the peak rate")
    group.add_argument("--ramp_down_len", type=non_negative_int, default=ramp_down_len, help="epochs of the linear ramp down")
    group.add_argument(
        "--last_lr_value", type=non_negative_float, default=last_lr_value, help="final share of the peak learning rate"
    )


def add_batch_norm_option(parser: argparse._ActionsContainer) -> None:
    """How fast the statistics of batch norms follow the weights."""
    parser.add_argument(
        "--batch_norm_momentum", type=unit_interval, default=0.01,
        help="share of a step's statistics in the running ones; 0.01 needs hundreds of steps to follow the weights",
    )  # fmt: skip


def add_augmentation_options(parser: argparse.ArgumentParser, *, mixup_alpha: float) -> None:
    """Options of what happens to waveforms and spectrograms in training only."""
    group = parser.add_argument_group("augmentation")
    group.add_argument("--mixup_alpha", type=non_negative_float, default=mixup_alpha, help="alpha of mixup on spectrograms; 0: off")
    group.add_argument(
        "--roll", type=non_negative_int, nargs="?", const=10000, default=0, help="shift waveforms by up to so many samples; 0: off"
    )
    group.add_argument(
        "--wavmix", action=argparse.BooleanOptionalAction, default=False, help="mix half of the waveforms with another one"
    )
    group.add_argument("--gain_augment", type=non_negative_float, default=0.0, help="random gain of up to so many dB; 0: off")
    group.add_argument("--freqm", type=non_negative_int, default=0, help="mask up to so many mel bands; 0: off")
    group.add_argument("--timem", type=non_negative_int, default=0, help="mask up to so many frames; 0: off")
    group.add_argument("--fmin_aug_range", type=positive_int, default=10, help="fmin is raised by up to so many Hz")
    group.add_argument("--fmax_aug_range", type=positive_int, default=2000, help="fmax moves within a range of so many Hz")


def pick_device(cuda: bool) -> torch.device:
    """Return the device to compute on; `--cuda` on a machine without CUDA says so and means the CPU."""
    import torch

    if cuda and not torch.cuda.is_available():
        logger.warning("--cuda: this machine has no usable CUDA device; running on the CPU")
    return torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")
