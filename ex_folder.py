"""Fine-tune on your own recordings: a folder with one folder per class, or a table of paths and labels.

python ex_folder.py recordings
python ex_folder.py recordings --csv labels.csv --pretrained_name mn40_as_ext --cuda
python ex_folder.py recordings --evaluate runs/folder/best.pt
python inference.py --model_name runs/folder/best.pt --audio_path recording.wav
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from datasets import folder
from datasets.recordings import Recordings
from helpers import cli
from helpers.training import distributed, finetuning
from helpers.training.objectives import CLASSIFICATION, TAGGING

CLIPS_TO_SEE = 8000  # in a training: fewer clips get more epochs


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("dataset_dir", metavar="DATA", nargs="?", type=cli.absolute_path, help="folder of the recordings")
    table = "table of path, labels (separated by ;), maybe start, end, split or fold, group; or labels of Raven or Audacity"
    parser.add_argument("--csv", type=cli.absolute_path, help=table)
    parser.add_argument("--fold", help="value of the fold column to validate on (the first)")
    parser.add_argument("--val_share", type=cli.unit_interval, default=0.2, help="share to validate on, if no column assigns it")
    parser.add_argument("--clip_seconds", type=cli.positive_float, help="length of clips (enough for nine in ten, 1 to 10)")
    parser.add_argument("--variable_eval_length", action="store_true", help="validate and test on whole clips")
    parser.add_argument("--from_scratch", action="store_true", help="start from random weights instead of --pretrained_name")
    finetuning.add_options(parser, experiment_name="folder", pretrained_name="mn10_as")
    finetuning.add_cache_option(parser)
    by_size = dict.fromkeys(("batch_size", "n_epochs", "warm_up_len", "ramp_down_start", "ramp_down_len"))  # see `fill_in`
    parser.set_defaults(max_lr=1e-3, batch_norm_momentum=0.1, **by_size, **finetuning.TUNED_AUGMENTATION)
    return parser


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = finetuning.parse(parser, argv, as_trained=("csv", "clip_seconds", "val_share", "fold", "seed"))
    if args.dataset_dir is None:
        parser.error("DATA is missing: the folder of the recordings")
    if args.from_scratch:
        if args.pretrained_name != parser.get_default("pretrained_name"):
            parser.error("--from_scratch starts from random weights; leave --pretrained_name out")
        args.pretrained_name = None
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_options(argv)
    with distributed.group(args.cuda) as device:
        data = folder.scan(args.dataset_dir, args.csv, decode_all=True)
        split = folder.split(data, args.val_share, args.seed, fold=args.fold)
        fill_in(args, data, len(split.train))
        task = make_task(args, data, split)
        part, checkpoint = ("test" if len(split.test) else "validation"), args.evaluate
        if not checkpoint:
            scores, run_folder = finetuning.finetune(args, device, task)
            finetuning.print_scores("Results on the validation clips, last epoch", scores)
            checkpoint = distributed.gather(run_folder)[0] / "best.pt"
        if args.evaluate or len(split.test):
            finetuning.print_scores(
                f"Results on the {part} clips: {checkpoint}", finetuning.evaluate(args, device, task, checkpoint)
            )
    return 0


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

    return finetuning.Task(
        objective=CLASSIFICATION if data.single_label else TAGGING,
        num_classes=len(data.class_names),
        labels=data.class_names,
        clip_seconds=args.clip_seconds,
        training_set=lambda rate: clips(split.train, rate, args.clip_seconds, random_crop=True),
        validation_set=lambda rate: clips(split.val, rate),
        test_set=lambda rate: clips(split.test if len(split.test) else split.val, rate),
        description=data.report() + "\n{} clips to train, {} to validate, {} to test on".format(*map(len, split)),
    )


if __name__ == "__main__":
    cli.run(main)
