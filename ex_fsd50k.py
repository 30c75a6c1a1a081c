"""Fine-tune on FSD50K; the epoch that is best on the validation split is tested on the evaluation set.

python ex_fsd50k.py --pretrained_name=mn10_as --cuda
python ex_fsd50k.py --evaluate runs/fsd50k/best.pt --variable_eval_length --cuda
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from datasets import fsd50k
from helpers import cli
from helpers.distillation.online_teacher import load_online_teacher
from helpers.distillation.options import add_teacher_options, check_teacher_options
from helpers.training import distributed, finetuning
from helpers.training.objectives import TAGGING

RECIPES = finetuning.published_recipes(
    later_tuned=(7e-5, 80, 64, 10, 10, 65),
    first_release=(5e-5, 20, 64, 0, 6, 9),
    dymn=(4e-5, 80, 32, 10, 10, 65),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    help_text = "folder of the HDF5 files (else FSD50K_DIR, else data/fsd50k)"
    finetuning.add_options(parser, experiment_name="fsd50k", recipes=RECIPES, dataset_help=help_text)
    add_teacher_options(parser)
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, default=10.0, help="length that clips are cropped or padded to")
    parser.add_argument(
        "--variable_eval_length", action="store_true", help="validate and test on whole clips, in batches of one length"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = finetuning.parse(parser, argv, RECIPES, as_trained=("clip_seconds",))
    check_teacher_options(parser, args)
    args.dataset_dir = fsd50k.LOCATION.resolve(args.dataset_dir).absolute()
    with distributed.group(args.cuda) as device:
        task = make_task(args)
        checkpoint = args.evaluate
        if not checkpoint:
            task.test_set(32000)  # a missing file is better found now than after the training
            _, folder = finetuning.finetune(args, device, task)
            checkpoint = distributed.gather(folder)[0] / "best.pt"
        scores = finetuning.evaluate(args, device, task, checkpoint)
        finetuning.print_scores(f"Results on the evaluation set of FSD50K: {checkpoint}", scores)
    return 0


def make_task(args: argparse.Namespace) -> finetuning.Task:
    """FSD50K: training clips are cropped at random, the others from their beginning or not at all."""
    eval_seconds = None if args.variable_eval_length else args.clip_seconds
    return finetuning.Task(
        objective=TAGGING,
        num_classes=fsd50k.NUM_CLASSES,
        labels=fsd50k.class_names(args.dataset_dir),
        clip_seconds=args.clip_seconds,
        training_set=lambda rate: fsd50k.training_set(args.dataset_dir, sample_rate=rate, clip_seconds=args.clip_seconds),
        validation_set=lambda rate: fsd50k.validation_set(args.dataset_dir, sample_rate=rate, clip_seconds=eval_seconds),
        test_set=lambda rate: fsd50k.evaluation_set(args.dataset_dir, sample_rate=rate, clip_seconds=eval_seconds),
        load_teacher=load_online_teacher,
    )


if __name__ == "__main__":
    cli.run(main)
