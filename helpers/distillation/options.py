"""Command-line options of distillation."""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers import cli
from helpers.distillation.soft_targets import INDEX_ASSET, PREDS_ASSET


def add_teacher_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Options of online teachers and of their share in the loss; returns their group."""
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--teacher", nargs="+", metavar="NAME",
        help="models that hear in each step what the student hears; their mean logits are the soft targets",
    )  # fmt: skip
    group.add_argument(
        "--kd_lambda", type=cli.unit_interval, default=0.1,
        help="share of the labels in the loss, 0 to 1; the soft targets have the rest. 1 trains on labels alone, without a teacher",
    )  # fmt: skip
    group.add_argument("--temperature", type=cli.positive_float, default=1.0, help="divisor of the teacher logits")
    group.add_argument(
        "--feature_kd", type=cli.non_negative_float, default=0.0, metavar="WEIGHT",
        help="of the loss by which each block learns the features of the first --teacher's block; 0: off",
    )  # fmt: skip
    return group


def check_teacher_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage message where the options of online teachers contradict each other."""
    if not args.teacher and any(
        getattr(args, name) != parser.get_default(name) for name in ("kd_lambda", "temperature", "feature_kd")
    ):
        parser.error("--kd_lambda, --temperature and --feature_kd are about a --teacher; give one, or leave them out")
    _check_shares(parser, args, args.teacher)


def _check_shares(parser: argparse.ArgumentParser, args: argparse.Namespace, teacher: object) -> None:
    if args.kd_lambda == 1 and teacher:
        parser.error("--kd_lambda 1 trains on labels alone; give a smaller one, or leave the teacher out")
    if getattr(args, "feature_kd", 0) and args.compile:
        parser.error("--feature_kd looks into the network, which --compile closes; leave one of them out")


def add_frame_teacher_options(parser: argparse.ArgumentParser) -> None:
    """Options of the teacher of a frame-wise network, stored or online, and of its share in the loss."""
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--teacher", nargs="+", metavar="NAME",
        help="frame-wise models that hear in each step what the student hears; their mean logits are the soft targets",
    )  # fmt: skip
    group.add_argument(
        "--teacher_preds", type=Path, metavar="HDF5",
        help="logits of frames, filenames and strong_logits (clips, classes, frames): by python -m helpers.distillation --frames, "
        "or as published for AudioSet Strong (Zenodo record 14626113)",
    )  # fmt: skip
    group.add_argument(
        "--kd_lambda", type=cli.unit_interval, default=0.1,
        help="with a teacher, share of the labels in the loss; the soft targets have the rest",
    )  # fmt: skip
    group.add_argument("--temperature", type=cli.positive_float, default=1.0, help="divisor of the teacher logits")


def check_frame_teacher_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage message where the options of a frame-wise network's teacher contradict each other."""
    if args.teacher and args.teacher_preds:
        parser.error("--teacher computes logits and --teacher_preds has them stored; give one of them")
    _check_shares(parser, args, args.teacher or args.teacher_preds)


def add_distillation_options(parser: argparse.ArgumentParser) -> None:
    """Options of the teacher, stored or online, and of its share in the loss."""
    group = add_teacher_options(parser)
    group.add_argument(
        "--teacher_preds", type=Path, metavar="NPY", help=f"teacher logits, (clips, classes) (the release's {PREDS_ASSET})"
    )
    group.add_argument(
        "--fname_to_index", type=Path, metavar="FILE",
        help="names of their rows: a .txt, one name per line in order, or a .pkl of a dict from name to row (the .txt next to "
        f"--teacher_preds if there is one, else the release's {INDEX_ASSET})",
    )  # fmt: skip
    group.add_argument(
        "--blockwise_epochs", type=cli.non_negative_int, default=0, metavar="EPOCHS",
        help="with --feature_kd, first epochs in which the blocks learn apart, each with the teacher's features as its input",
    )  # fmt: skip
    group.add_argument(
        "--views", nargs=2, type=cli.positive_float, metavar="SECONDS",
        help="with --teacher and --kd_lambda 0, train on views of the recordings, as long as a draw from this range: mixtures, "
        "other speeds, filters, rooms, noise, low levels, silence",
    )  # fmt: skip


def check_distillation_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage message where options of a training contradict each other."""
    if not args.train:
        return
    stored = args.teacher_preds or args.fname_to_index
    _check_shares(parser, args, stored or args.teacher)
    if args.teacher and stored:
        parser.error("--teacher computes logits and --teacher_preds has them stored; give one of them")
    if (args.feature_kd or args.views) and not args.teacher:
        parser.error("--feature_kd and --views need a --teacher that hears what the student hears")
    if args.blockwise_epochs and not args.feature_kd:
        parser.error("--blockwise_epochs is about --feature_kd; give its weight, such as 1")
    if args.views and args.kd_lambda > 0:
        parser.error("--views mixes recordings, so their labels do not fit; give --kd_lambda 0")
    if args.views and not args.views[0] <= args.views[1] <= args.clip_seconds:
        parser.error(f"--views must be two lengths, the shorter one first, of at most --clip_seconds {args.clip_seconds:g}")
