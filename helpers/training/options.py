"""Command-line options of every training."""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers import cli
from helpers.devices import loader_workers
from helpers.training import tracking


def add_run_options(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """Options of every experiment: where and how it computes."""
    group = parser.add_argument_group("computation")
    group.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    group.add_argument("--batch_size", type=cli.positive_int, default=batch_size, help="clips in a batch, over all ranks")
    group.add_argument(
        "--num_workers", type=cli.non_negative_int, default=loader_workers(), help="worker processes that decode; 0: none"
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16"),
        help="of the network's forward pass (CUDA: bf16, or fp16 where there is no bf16; CPU: fp32)",
    )  # fmt: skip


def add_training_options(parser: argparse.ArgumentParser, *, experiment_name: str) -> None:
    """Options of every training: its folder, its seed, how a step is computed, how it resumes."""
    group = parser.add_argument_group("training run")
    group.add_argument("--experiment_name", default=experiment_name, help="name of the run's folder below runs/")
    group.add_argument("--resume", type=Path, metavar="FOLDER", help="resume the run in this folder, with its options")
    group.add_argument("--save_minutes", type=cli.non_negative_float, default=10.0, help="minutes between checkpoints in an epoch")
    group.add_argument("--seed", type=cli.seed, default=0, help="seed of initialisation, sampling and augmentation")
    group.add_argument(
        "--accumulate", type=cli.positive_int, default=1, metavar="MICRO_BATCHES",
        help="micro-batches that a rank cuts its share of a batch into, to save memory",
    )  # fmt: skip
    group.add_argument("--compile", action="store_true", help="compile the network with torch.compile, once for all lengths")
    group.add_argument(
        "--deterministic", action="store_true", help="on CUDA, repeat a training bit by bit, at the cost of speed; CPUs always do"
    )
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
    group.add_argument("--n_epochs", type=cli.positive_int, default=n_epochs, help="number of epochs")
    group.add_argument("--max_lr", "--lr", type=cli.positive_float, default=max_lr, help="peak learning rate of Adam")
    group.add_argument("--weight_decay", type=cli.non_negative_float, default=weight_decay, help="weight decay of Adam")
    group.add_argument("--warm_up_len", type=cli.non_negative_int, default=warm_up_len, help="epochs of the exponential ramp up")
    group.add_argument("--ramp_down_start", type=cli.non_negative_int, default=ramp_down_start, help="last epoch at the peak rate")
    group.add_argument("--ramp_down_len", type=cli.non_negative_int, default=ramp_down_len, help="epochs of the linear ramp down")
    group.add_argument(
        "--last_lr_value", type=cli.non_negative_float, default=last_lr_value, help="final share of the peak learning rate"
    )


def add_batch_norm_option(parser: argparse._ActionsContainer) -> None:
    """How fast the statistics of batch norms follow the weights."""
    parser.add_argument(
        "--batch_norm_momentum", type=cli.unit_interval, default=0.01,
        help="share of a step's statistics in the running ones; 0.01 needs hundreds of steps to follow the weights",
    )  # fmt: skip


def add_augmentation_options(parser: argparse.ArgumentParser, *, mixup_alpha: float) -> None:
    """Options of what happens to waveforms and spectrograms in training only."""
    group = parser.add_argument_group("augmentation")
    group.add_argument("--mixup_alpha", type=cli.non_negative_float, default=mixup_alpha, help="alpha of mixup; 0: off")
    group.add_argument(
        "--roll",
        type=cli.non_negative_int,
        nargs="?",
        const=10000,
        default=0,
        help="roll waveforms by up to this many samples; 0: off",
    )
    group.add_argument(
        "--wavmix", action=argparse.BooleanOptionalAction, default=False, help="mix half of the waveforms with another one"
    )
    group.add_argument("--gain_augment", type=cli.non_negative_float, default=0.0, help="random gain of up to this many dB; 0: off")
    group.add_argument("--freqm", type=cli.non_negative_int, default=0, help="mask up to this many mel bands; 0: off")
    group.add_argument("--timem", type=cli.non_negative_int, default=0, help="mask up to this many frames; 0: off")
    group.add_argument("--fmin_aug_range", type=cli.positive_int, default=10, help="fmin is raised by up to this many Hz")
    group.add_argument("--fmax_aug_range", type=cli.positive_int, default=2000, help="fmax moves within a range of this many Hz")
