"""Fine-tune on your own recordings: a folder with one folder per class, or a table of paths and labels.

python ex_folder.py recordings
python ex_folder.py recordings --csv labels.csv --pretrained_name mn40_as_ext --cuda
python ex_folder.py recordings --folds 5 --balance sampling --patience 10
python ex_folder.py recordings --evaluate runs/folder/best.pt
python ex_folder.py recordings --csv events.csv --strong --cuda
python inference.py --model_name runs/folder/best.pt --audio_path recording.wav
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datasets.folders import folder
from datasets.folders.strong import StrongFolder, scan_events
from datasets.recordings import Recordings
from datasets.strong_clips import StrongClips
from helpers import cli
from helpers.distillation.frame_teachers import load_frame_teacher
from helpers.distillation.online_teacher import load_online_teacher
from helpers.distillation.options import (
    add_frame_teacher_options,
    add_teacher_options,
    check_frame_teacher_options,
    check_teacher_options,
)
from helpers.training import balance, distributed, finetuning, folds, frame_wise
from helpers.training.builders import make_loader
from helpers.training.class_figures import write_class_figures
from helpers.training.evaluation import Predictions, default_precision
from helpers.training.folds import ALL
from helpers.training.objectives import CLASSIFICATION, TAGGING
from helpers.training.run import parse_arguments, parse_as_trained

CLIPS_TO_SEE = 8000  # in a training: fewer clips get more epochs


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("dataset_dir", metavar="DATA", nargs="?", type=cli.absolute_path, help="folder of the recordings")
    table = "table of path, labels (separated by ;), maybe start, end, split or fold, group; or labels of Raven or Audacity"
    parser.add_argument("--csv", type=cli.absolute_path, help=table)
    parser.add_argument("--strong", action="store_true", help="learn when sounds are, see --strong --help for what this takes")
    parser.add_argument("--fold", help="value of the fold column to validate on (the first); all: a training for each of them")
    parser.add_argument("--folds", type=cli.positive_int, metavar="K", help="divide the clips into K folds at random, train on all")
    parser.add_argument("--val_share", type=cli.unit_interval, default=0.2, help="share to validate on, if no column assigns it")
    help_text = "of classes of unequal size: draw rare ones more often, or weight them in the loss"
    parser.add_argument("--balance", choices=balance.CHOICES, default="none", help=help_text)
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, help="length of clips (enough for nine in ten, 1 to 10)")
    parser.add_argument("--variable_eval_length", action="store_true", help="validate and test on whole clips")
    parser.add_argument("--from_scratch", action="store_true", help="start from random weights instead of --pretrained_name")
    finetuning.add_options(parser, experiment_name="folder", pretrained_name="mn10_as")
    finetuning.add_cache_option(parser)
    add_teacher_options(parser)
    by_size = dict.fromkeys(("batch_size", "n_epochs", "warm_up_len", "ramp_down_start", "ramp_down_len"))  # see `fill_in`
    parser.set_defaults(max_lr=1e-3, batch_norm_momentum=0.1, **by_size, **finetuning.TUNED_AUGMENTATION)
    return parser


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = finetuning.parse(parser, argv, as_trained=("csv", "clip_seconds", "val_share", "fold", "folds", "seed"))
    check_teacher_options(parser, args)
    if args.dataset_dir is None:
        parser.error("DATA is missing: the folder of the recordings")
    if args.folds and args.fold is None:
        args.fold = ALL
    if args.evaluate and args.fold == ALL:
        parser.error("--evaluate measures one model on the fold that it was not trained on; give that --fold")
    if args.from_scratch:
        if args.pretrained_name != parser.get_default("pretrained_name"):
            parser.error("--from_scratch starts from random weights; leave --pretrained_name out")
        args.pretrained_name = None
    return args


class Result(NamedTuple):
    """What a training reaches on its validation clips."""

    last: dict[str, float]  # scores of the last epoch
    best: dict[str, float]  # of the epoch that is best on these clips
    predictions: Predictions  # of the best epoch


def main(argv: Sequence[str] | None = None) -> int:
    chooser = argparse.ArgumentParser(add_help=False)
    chooser.add_argument("--strong", action="store_true")
    if chooser.parse_known_args(argv)[0].strong:
        return strong_main(argv)
    args = parse_options(argv)
    with distributed.group(args.cuda) as device:
        data = folder.scan(args.dataset_dir, args.csv, decode_all=True)
        if args.folds:
            data = folder.with_drawn_folds(data, args.folds, args.seed)
        if args.evaluate:
            evaluate(args, device, data)
        elif args.fold == ALL:
            train_all_folds(args, device, data)
        else:
            train(args, device, data)
    return 0


def evaluate(args: argparse.Namespace, device: torch.device, data: folder.FolderData) -> None:
    """Print the scores of a checkpoint on the test clips or, without such, on the validation clips."""
    task, has_test = open_task(args, data)
    title = f"Results on the {'test' if has_test else 'validation'} clips: {args.evaluate}"
    finetuning.print_scores(title, finetuning.evaluate(args, device, task, args.evaluate))


def train(args: argparse.Namespace, device: torch.device, data: folder.FolderData, run_folder: Path | None = None) -> Result:
    """Train, print scores, and write the figures of each class next to the checkpoints."""
    task, has_test = open_task(args, data)
    last, run_folder = finetuning.finetune(args, device, task, run_folder)
    checkpoint = distributed.gather(run_folder)[0] / "best.pt"
    finetuning.print_scores(f"Results on the validation clips{f' of fold {args.fold}' if args.fold else ''}, last epoch", last)

    def report(part: str, clips: Callable[[int], Recordings]) -> tuple[dict[str, float], Predictions]:
        predictions = finetuning.predict_with(checkpoint, args, device, task, clips)
        scores = task.objective.scores(predictions)
        finetuning.print_scores(f"Results on the {part} clips: {checkpoint}", scores)
        if distributed.is_main():
            write_class_figures(checkpoint.parent, part, data.class_names, predictions, data.single_label)
        return scores, predictions

    best, predictions = report("validation", task.validation_set)
    if has_test:
        report("test", task.test_set)
    return Result({name: last[name] for name in best}, best, predictions)


def train_all_folds(args: argparse.Namespace, device: torch.device, data: folder.FolderData) -> None:
    """Train a model for each fold, in folders below the run's own; print and write what they reach together."""
    names = folder.fold_names(data)
    run_folder, results = folds.train_folds(args, names, lambda part, run_folder: train(part, device, data, run_folder))
    scores = {"last": [result.last for result in results], "best": [result.best for result in results]}
    for epoch, of_folds in scores.items():
        folds.print_mean(of_folds, f"{epoch} epoch")
    if distributed.is_main():
        folds.write_scores(run_folder / "folds.csv", names, scores)
        together = Predictions.concatenate([result.predictions for result in results])
        write_class_figures(run_folder, "validation", data.class_names, together, data.single_label)


def open_task(args: argparse.Namespace, data: folder.FolderData) -> tuple[finetuning.Task, bool]:
    """Divide the clips and complete the options; return the task, and whether there are test clips."""
    split = folder.split(data, args.val_share, args.seed, fold=args.fold)
    fill_in(args, data, len(split.train))
    return make_task(args, data, split), len(split.test) > 0


def fill_in(args: argparse.Namespace, data: folder.FolderData, training_clips: int) -> None:
    """Give the options that depend on the size of the data their defaults: 50 clips need other ones than 50,000."""
    if args.batch_size is None:
        args.batch_size = min(training_clips, 64, max(4, 2 ** int(np.log2(training_clips / 4))))
    if args.n_epochs is None:
        args.n_epochs = int(np.clip(CLIPS_TO_SEE // training_clips, 20, 80))
    warm_up = args.n_epochs // 8
    args.warm_up_len = warm_up if args.warm_up_len is None else args.warm_up_len
    args.ramp_down_start = warm_up if args.ramp_down_start is None else args.ramp_down_start
    args.ramp_down_len = args.n_epochs - warm_up if args.ramp_down_len is None else args.ramp_down_len
    if args.clip_seconds is None:
        args.clip_seconds = float(np.clip(np.ceil(np.quantile(data.seconds, 0.9)), 1, 10))


def make_task(args: argparse.Namespace, data: folder.FolderData, split: folder.Split) -> finetuning.Task:
    """The recordings of a folder: training clips are cropped at random, the others from their beginning or not at all."""
    eval_seconds = None if args.variable_eval_length else args.clip_seconds

    def clips(indices: np.ndarray, rate: int, seconds: float | None = eval_seconds, random_crop: bool = False) -> Recordings:
        return data.clips(indices, sample_rate=rate, clip_seconds=seconds, random_crop=random_crop, cache_dir=args.cache_path)

    objective = CLASSIFICATION if data.single_label else TAGGING
    if data.single_label and args.balance != "none":
        objective = replace(objective, selection="accuracy_class_mean")
    return finetuning.Task(
        objective=objective,
        num_classes=len(data.class_names),
        labels=data.class_names,
        clip_seconds=args.clip_seconds,
        training_set=lambda rate: clips(split.train, rate, args.clip_seconds, random_crop=True),
        validation_set=lambda rate: clips(split.val, rate),
        test_set=lambda rate: clips(split.test if len(split.test) else split.val, rate),
        balance=args.balance,
        load_teacher=load_online_teacher,
        description=data.report() + "\n{} clips to train, {} to validate, {} to test on".format(*map(len, split)),
    )


def build_strong_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a frame-wise network on events in time.", formatter_class=cli.HelpFormatter)
    parser.add_argument("dataset_dir", metavar="DATA", type=cli.absolute_path, help="folder of the recordings")
    parser.add_argument("--strong", action="store_true", help="learn when sounds are, not only what they are")
    table = "table of path, start, end, labels (or filename, onset, offset, event_label), maybe split or fold, group; or labels of "
    parser.add_argument("--csv", type=cli.absolute_path, required=True, help=f"{table}Raven or Audacity")
    parser.add_argument("--evaluate", metavar="CHECKPOINT", help="evaluate a checkpoint instead of training")
    parser.add_argument("--fold", help="value of the fold column to validate on (the first)")
    parser.add_argument("--val_share", type=cli.unit_interval, default=0.2, help="share to validate on, if no column assigns it")
    parser.add_argument(
        "--clip_seconds", type=cli.clip_seconds, default=10.0, help="length of the clips that recordings are cut into"
    )
    parser.add_argument("--weak_share", type=cli.unit_interval, default=0.3, help="share of the clips drawn that have labels alone")
    finetuning.add_cache_option(parser)
    parser.add_argument("--from_scratch", action="store_true", help="start from random weights instead of --pretrained_name")
    frame_wise.add_options(parser, experiment_name="folder", n_epochs=40, epoch_len=None)
    add_frame_teacher_options(parser)
    parser.set_defaults(pretrained_name="fmn10_strong", batch_size=16, max_lr=5e-4, batch_norm_momentum=0.1)
    return parser


def strong_main(argv: Sequence[str] | None) -> int:
    """`--strong`: train or evaluate on events; recordings are cut into clips."""
    parser = build_strong_parser()
    args = parse_arguments(parser, argv)
    check_frame_teacher_options(parser, args)
    if args.from_scratch:
        args.pretrained_name = None
    if args.evaluate:
        args = parse_as_trained(parser, argv, args.evaluate, ("csv", "clip_seconds", "val_share", "fold", "seed"))
    with distributed.group(args.cuda) as device:
        data = scan_events(args.dataset_dir, args.csv, args.clip_seconds, decode_all=True)
        task, has_test = strong_task(args, data)
        checkpoint = args.evaluate
        if not checkpoint:
            args.batch_size = min(args.batch_size, len(folder.split(data.data, args.val_share, args.seed, fold=args.fold).train))
            scores, run_folder = frame_wise.train(args, device, task, load_frame_teacher)
            frame_wise.print_scores(
                "Results on the validation clips, last epoch", {name: scores[name] for name in frame_wise.SCORES}
            )
            checkpoint = distributed.gather(run_folder)[0] / "best.pt"
        model = frame_wise.load_frame_wise(str(checkpoint), task.labels, device)
        form = frame_wise.form_of(model, args.clip_seconds)
        loader = make_loader((task.test_set if has_test else task.validation_set)(form), args)
        per_class = None if args.evaluate else checkpoint.parent / f"{'test' if has_test else 'validation'}_classes.csv"
        scores = frame_wise.evaluate(model, loader, form, args.precision or default_precision(device), per_class)
        frame_wise.print_scores(f"Results on the {'test' if has_test else 'validation'} clips: {checkpoint}", scores)
    return 0


def strong_task(args: argparse.Namespace, data: StrongFolder) -> tuple[frame_wise.FrameTask, bool]:
    """The clips of a folder, divided; and whether there are test clips."""
    split = folder.split(data.data, args.val_share, args.seed, fold=args.fold)

    def clips(indices: np.ndarray, form: frame_wise.Form, with_weak: bool = False) -> StrongClips:
        options = {"sample_rate": form.sample_rate, "clip_seconds": args.clip_seconds, "cache_dir": args.cache_path}
        return data.clips(indices, frames=form.frames, step=form.step, with_weak=with_weak, **options)

    task = frame_wise.FrameTask(
        labels=data.data.class_names,
        clip_seconds=args.clip_seconds,
        training_set=lambda form: clips(split.train, form, with_weak=args.weak_share > 0),
        validation_set=lambda form: clips(split.val, form),
        test_set=lambda form: clips(split.test, form),
        description=data.report() + "\n{} clips to train, {} to validate, {} to test on".format(*map(len, split)),
    )
    return task, len(split.test) > 0


if __name__ == "__main__":
    cli.run(main)
