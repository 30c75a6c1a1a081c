"""Fine-tune on TAU Urban Acoustic Scenes 2020 Mobile (DCASE 2020, task 1A); accuracy by device and for cities never trained on.

python ex_dcase20.py --pretrained_name=mn10_as --cache_path=cache --cuda
python ex_dcase20.py --pretrained_name=mn40_as --cache_path=cache --mixstyle_p=0.4 --cuda
python ex_dcase20.py --evaluate runs/dcase20/last.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from datasets import dcase20
from datasets.recordings import Recordings
from helpers import cli
from helpers.distillation.online_teacher import load_online_teacher
from helpers.distillation.options import add_teacher_options, check_teacher_options
from helpers.metrics import accuracy_by
from helpers.training import distributed, finetuning
from helpers.training.evaluation import Predictions
from helpers.training.objectives import CLASSIFICATION

RECIPES = finetuning.published_recipes(
    later_tuned=(8e-4, 80, 64, 10, 10, 65),
    first_release=(2e-5, 50, 16, 6, 6, 20),
    dymn=(3e-4, 80, 32, 10, 10, 65),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    help_text = "folder of meta.csv and audio/ (else DCASE20_DIR, else data/dcase20)"
    finetuning.add_options(parser, experiment_name="dcase20", recipes=RECIPES, dataset_help=help_text)
    finetuning.add_cache_option(parser)
    add_teacher_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = finetuning.parse(parser, argv, RECIPES)
    check_teacher_options(parser, args)
    args.dataset_dir = dcase20.LOCATION.resolve(args.dataset_dir).absolute()
    with distributed.group(args.cuda) as device:
        task = make_task(args)
        if args.evaluate:
            title, scores = args.evaluate, finetuning.evaluate(args, device, task, args.evaluate)
        else:
            title, (scores, _) = "last epoch", finetuning.finetune(args, device, task)
        finetuning.print_scores(f"Results on the test files of fold 1: {title}", scores)
    return 0


def make_task(args: argparse.Namespace) -> finetuning.Task:
    """Fold 1 of the development set, whose test files are measured after each epoch: there is no other validation set."""

    def test_set(sample_rate: int) -> Recordings:
        return dcase20.test_set(args.dataset_dir, sample_rate=sample_rate, cache_dir=args.cache_path)

    train_cities, test_cities = (dcase20.city_by_name(args.dataset_dir, part) for part in ("train", "evaluate"))
    unseen = set(test_cities.values()) - set(train_cities.values())

    def scores(predictions: Predictions) -> dict[str, float]:
        devices = [f"accuracy_device_{dcase20.device_of(name)}" for name in predictions.names]
        cities = [f"accuracy_{'unseen' if test_cities[name] in unseen else 'seen'}_cities" for name in predictions.names]
        by_group = [accuracy_by(groups, predictions.targets, predictions.logits) for groups in (devices, cities)]
        return CLASSIFICATION.scores(predictions) | by_group[0] | by_group[1]

    return finetuning.Task(
        objective=replace(CLASSIFICATION, scores=scores),
        num_classes=dcase20.NUM_CLASSES,
        labels=dcase20.SCENES,
        clip_seconds=dcase20.CLIP_SECONDS,
        training_set=lambda rate: dcase20.training_set(args.dataset_dir, sample_rate=rate, cache_dir=args.cache_path),
        validation_set=test_set,
        test_set=test_set,
        load_teacher=load_online_teacher,
    )


if __name__ == "__main__":
    cli.run(main)
