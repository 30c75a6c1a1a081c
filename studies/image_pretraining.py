"""Does a small audio network that starts from weights trained on images learn more than from scratch? On the open corpus.

python -m studies.image_pretraining --pretrained_name runs/letters/last.pt --dataset_dir data/opensounds --output_dir runs/images

Networks of one architecture are trained from both starts with the same seeds, options and steps. Writes results.csv and
image_pretraining.png and prints a table. Interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets import audioset
from helpers import cli
from models import checkpoints
from studies import common

ARMS = {"scratch": "from scratch", "images": "from images"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--pretrained_name", type=cli.absolute_path, required=True, help="checkpoint of ex_imagenet.py")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of the HDF5 files")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--seeds", type=cli.positive_int, default=3, help="trainings of each kind, seeds 0, 1, ...")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=2.0, help="length of training and evaluation clips")
    parser.add_argument("--batch_size", type=cli.positive_int, default=16, help="clips in a batch")
    parser.add_argument("--n_epochs", type=cli.positive_int, default=6, help="epochs of every training")
    parser.add_argument("--max_lr", type=cli.positive_float, default=3e-3, help="peak learning rate of every training")
    parser.add_argument("--jobs", type=cli.positive_int, default=1, help="trainings at a time, on one thread each if more than 1")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.dataset_dir, args.output_dir = args.dataset_dir.absolute(), args.output_dir.absolute()
    audioset.LOCATION.resolve(args.dataset_dir)
    arch, _ = checkpoints.architecture(args.pretrained_name)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    shared = [
        "--kd_lambda", 1, "--dataset_dir", args.dataset_dir, "--clip_seconds", args.clip_seconds, "--batch_size", args.batch_size,
        "--n_epochs", args.n_epochs, "--max_lr", args.max_lr, "--warm_up_len", 1, "--ramp_down_start", 1,
        "--ramp_down_len", args.n_epochs - 1, "--roll", "--gain_augment", 6, *(["--cuda"] if args.cuda else []),
    ]  # fmt: skip
    starts = {
        "scratch": ["--model_width", arch.width_mult, "--head_type", arch.head_type, "--se_dims", arch.se_dims],
        "images": ["--pretrained_name", args.pretrained_name],
    }
    runs = {(arm, seed): starts[arm] for seed in range(args.seeds) for arm in ARMS}
    common.train_all(runs, shared, args.output_dir, args.jobs)
    results = common.read_results(args.output_dir, list(ARMS), args.seeds)
    common.write_csv(args.output_dir / "results.csv", results)
    draw(args.output_dir / "image_pretraining.png", results)
    common.print_table(results, ARMS)
    return 0


def draw(path: Path, results: common.Results) -> None:
    """Draw mAP over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    common.draw_epochs(axes, results, ARMS)
    axes.set_title(f"Audio networks from images and from scratch, {len(results['scratch'])} seeds")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
