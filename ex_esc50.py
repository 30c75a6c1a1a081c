"""Fine-tune on ESC-50 and test on the fold that was held out.

python ex_esc50.py --pretrained_name=mn40_as_ext --fold=1 --cuda
python ex_esc50.py --pretrained_name=mn10_as --fold=all --cuda
python ex_esc50.py --evaluate runs/esc50/last.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from datasets import esc50
from datasets.recordings import Recordings
from helpers import cli
from helpers.distillation.online_teacher import load_online_teacher
from helpers.distillation.options import add_teacher_options, check_teacher_options
from helpers.training import distributed, finetuning, folds
from helpers.training.folds import ALL
from helpers.training.objectives import CLASSIFICATION

RECIPES = finetuning.published_recipes(
    later_tuned=(6e-5, 80, 128, 10, 10, 65),
    first_release=(1e-5, 50, 64, 10, 20, 20),
    dymn=(4e-5, 80, 64, 10, 10, 65),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    choices = [*map(str, esc50.FOLDS), ALL]
    parser.add_argument("--fold", choices=choices, default="1", help="fold to test on; all: five trainings, one after the other")
    help_text = "folder of meta/ and audio/ (else ESC50_DIR, else data/esc50)"
    finetuning.add_options(parser, experiment_name="esc50", recipes=RECIPES, dataset_help=help_text)
    finetuning.add_cache_option(parser)
    add_teacher_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = finetuning.parse(parser, argv, RECIPES, as_trained=("fold",))
    check_teacher_options(parser, args)
    if args.evaluate and args.fold == ALL:
        parser.error("--evaluate measures one model on the fold that it was not trained on; give --fold 1 to 5")
    args.dataset_dir = esc50.LOCATION.resolve(args.dataset_dir).absolute()
    with distributed.group(args.cuda) as device:
        if args.evaluate:
            scores = finetuning.evaluate(args, device, make_task(args, int(args.fold)), args.evaluate)
            finetuning.print_scores(f"Results on fold {args.fold} of ESC-50: {args.evaluate}", scores)
        elif args.fold == ALL:
            train_all_folds(args, device)
        else:
            scores, _ = finetuning.finetune(args, device, make_task(args, int(args.fold)))
            finetuning.print_scores(f"Results on fold {args.fold} of ESC-50, last epoch", scores)
    return 0


def train_all_folds(args: argparse.Namespace, device: torch.device) -> None:
    """Train a model for each fold, in folders below the run's own; print the accuracies and their mean."""

    def train(part: argparse.Namespace, folder: Path) -> dict[str, float]:
        scores, _ = finetuning.finetune(part, device, make_task(part, int(part.fold)), folder)
        finetuning.print_scores(f"Results on fold {part.fold} of ESC-50, last epoch", scores)
        return scores

    _, scores = folds.train_folds(args, list(map(str, esc50.FOLDS)), train)
    folds.print_mean(scores, "last epoch")


def make_task(args: argparse.Namespace, fold: int) -> finetuning.Task:
    """ESC-50 with one fold held out; there is no other validation set."""

    def held_out(sample_rate: int) -> Recordings:
        return esc50.test_set(args.dataset_dir, fold, sample_rate=sample_rate, cache_dir=args.cache_path)

    return finetuning.Task(
        objective=CLASSIFICATION,
        num_classes=esc50.NUM_CLASSES,
        labels=esc50.class_names(args.dataset_dir),
        clip_seconds=esc50.CLIP_SECONDS,
        training_set=lambda rate: esc50.training_set(args.dataset_dir, fold, sample_rate=rate, cache_dir=args.cache_path),
        validation_set=held_out,
        test_set=held_out,
        load_teacher=load_online_teacher,
    )


if __name__ == "__main__":
    cli.run(main)
