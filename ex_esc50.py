"""Fine-tune on ESC-50 and test on the fold that was held out.

python ex_esc50.py --pretrained_name=mn40_as_ext --fold=1 --cuda
python ex_esc50.py --pretrained_name=mn10_as --fold=all --cuda
python ex_esc50.py --evaluate runs/esc50/last.pt --fold=1
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from datasets import esc50
from helpers import cli, distributed
from helpers.finetuning import (
    TUNED_AUGMENTATION,
    Task,
    add_cache_option,
    add_options,
    add_recipe_option,
    evaluate,
    finetune,
    parse,
    print_scores,
    published_recipe,
)  # fmt: skip
from helpers.objectives import CLASSIFICATION
from helpers.run import experiment_folder

RECIPES = {
    "later_tuned": published_recipe(6e-5, 80, 128, 10, 10, 65, **TUNED_AUGMENTATION),
    "first_release": published_recipe(1e-5, 50, 64, 10, 20, 20),
}
ALL = "all"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    folds = [*map(str, esc50.FOLDS), ALL]
    parser.add_argument("--fold", choices=folds, default="1", help="fold to test on; all: five trainings, one after the other")
    add_options(parser, experiment_name="esc50", dataset_help="folder of meta/ and audio/ (else ESC50_DIR, else data/esc50)")
    add_recipe_option(parser, RECIPES)
    add_cache_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parse(parser, argv, RECIPES, as_trained=("fold",))
    if args.evaluate and args.fold == ALL:
        parser.error("--evaluate measures one model on the fold that it was not trained on; give --fold 1 to 5")
    args.dataset_dir = esc50.resolve_dir(args.dataset_dir).absolute()
    with distributed.group(args.cuda) as device:
        if args.evaluate:
            scores = evaluate(args, device, make_task(args, int(args.fold)), args.evaluate)
            print_scores(f"Results on fold {args.fold} of ESC-50: {args.evaluate}", scores)
        elif args.fold == ALL:
            train_all_folds(args, device)
        else:
            scores, _ = finetune(args, device, make_task(args, int(args.fold)))
            print_scores(f"Results on fold {args.fold} of ESC-50, last epoch", scores)
    return 0


def train_all_folds(args: argparse.Namespace, device: torch.device) -> None:
    """Train a model for each fold, in folders below the run's own; print the accuracies and their mean."""
    folder = experiment_folder(args)
    accuracies = []
    for fold in esc50.FOLDS:
        part = argparse.Namespace(**vars(args) | {"fold": str(fold)})
        scores, _ = finetune(part, device, make_task(args, fold), folder / f"fold_{fold}")
        accuracies.append(scores["accuracy"])
        print_scores(f"Results on fold {fold} of ESC-50, last epoch", scores)
    print_scores("Mean of the five folds", {"accuracy": statistics.mean(accuracies)})


def make_task(args: argparse.Namespace, fold: int) -> Task:
    """ESC-50 with one fold held out; there is no other validation set."""
    cache = None if args.cache_path is None else Path(args.cache_path)

    def held_out(sample_rate: int) -> esc50.Recordings:
        return esc50.test_set(args.dataset_dir, fold, sample_rate=sample_rate, cache_dir=cache)

    return Task(
        objective=CLASSIFICATION,
        num_classes=esc50.NUM_CLASSES,
        labels=esc50.class_names(args.dataset_dir),
        clip_seconds=esc50.CLIP_SECONDS,
        training_set=lambda sample_rate: esc50.training_set(args.dataset_dir, fold, sample_rate=sample_rate, cache_dir=cache),
        validation_set=held_out,
        test_set=held_out,
    )


if __name__ == "__main__":
    cli.run(main)
