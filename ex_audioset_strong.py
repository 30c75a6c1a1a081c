"""Train and evaluate a frame-wise network on AudioSet Strong, or on any corpus in its file format.

python ex_audioset_strong.py --train --pretrained_name fmn10_weak --teacher_preds ensemble.hdf5 --max_lr 3e-3 --cuda
python ex_audioset_strong.py --train --pretrained_name mn04_distilled --dataset_dir data/soundscapes --epoch_len 2000
python ex_audioset_strong.py --train --pretrained_name fmn10_weak --sequence_model tf --teacher fmn30_strong --weak_share 0.5 --cuda
python ex_audioset_strong.py --model_name fmn10_strong --per_class classes.csv --cuda
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from datasets import audioset, audioset_strong
from datasets.strong_clips import StrongClips
from helpers import cli
from helpers.distillation.frame_teachers import load_frame_teacher
from helpers.distillation.options import add_frame_teacher_options, check_frame_teacher_options
from helpers.training import distributed, frame_wise
from helpers.training.builders import make_loader
from helpers.training.evaluation import default_precision
from helpers.training.run import parse_arguments


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", action="store_true", help="train a model")
    task.add_argument("--model_name", help="model to evaluate: a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--per_class", type=Path, metavar="CSV", help="write the evaluation's metrics of each class to this file")
    parser.add_argument("--dataset_dir", help="folder of audio and tables (else AUDIOSET_DIR, else data/audioset)")
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, default=10.0, help="length that clips are cut or padded to")
    parser.add_argument(
        "--weak_share", type=cli.unit_interval, default=0.0,
        help="share of the clips drawn that have labels without times: all training clips that the table does not name; 0: none",
    )  # fmt: skip
    frame_wise.add_options(parser, experiment_name="audioset_strong", n_epochs=120, epoch_len=100_000)
    add_frame_teacher_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parse_arguments(parser, argv)
    if not args.train and (args.resume or args.pretrained_name):
        parser.error("--resume and --pretrained_name belong to a training; give --train")
    if args.per_class and (args.train or not args.per_class.absolute().parent.is_dir()):
        parser.error("--per_class belongs to an evaluation and names a file in a folder that exists")
    check_frame_teacher_options(parser, args)
    args.dataset_dir = audioset.LOCATION.resolve(args.dataset_dir).absolute()
    with distributed.group(args.cuda) as device:
        task = open_task(args)
        if args.train:
            frame_wise.train(args, device, task, load_frame_teacher)
        else:
            evaluate(args, device, task)
    return 0


def open_task(args: argparse.Namespace) -> frame_wise.FrameTask:
    classes = audioset_strong.read_classes(args.dataset_dir)

    def clips(part: str, form: frame_wise.Form) -> StrongClips:
        options = {"sample_rate": form.sample_rate, "clip_seconds": args.clip_seconds}
        with distributed.local_main_first():  # which writes the index of shards
            return audioset_strong.strong_set(
                part, args.dataset_dir, classes, frames=form.frames, step=form.step,
                with_weak=part == "train" and args.weak_share > 0, **options,
            )  # fmt: skip

    return frame_wise.FrameTask(
        labels=classes.labels,
        clip_seconds=args.clip_seconds,
        training_set=lambda form: clips("train", form),
        validation_set=lambda form: clips("validation", form),
        test_set=lambda form: clips("eval", form),
        weak_classes=list(audioset_strong.clip_label_columns(classes.mids)),
    )


def evaluate(args: argparse.Namespace, device: torch.device, task: frame_wise.FrameTask) -> None:
    """Print the metrics of events on the evaluation clips."""
    with distributed.local_main_first():  # which downloads
        model = frame_wise.load_frame_wise(args.model_name, task.labels, device)
    form = frame_wise.form_of(model, args.clip_seconds)
    loader = make_loader(task.test_set(form), args)
    scores = frame_wise.evaluate(model, loader, form, args.precision or default_precision(device), args.per_class)
    frame_wise.print_scores(f"Results on {args.dataset_dir.name}'s evaluation clips: {args.model_name}", scores)


if __name__ == "__main__":
    cli.run(main)
