"""Does a small audio network that starts from weights trained on images learn more than from scratch? On the open corpus.

python -m studies.image_pretraining --pretrained_name runs/letters/last.pt --dataset_dir data/opensounds --output_dir runs/images

Networks of one architecture are trained from both starts with the same seeds, options and steps. Writes results.csv and
image_pretraining.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from helpers import cli
from models import checkpoints
from studies import common

ARMS = {"scratch": "from scratch", "images": "from images"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--pretrained_name", type=cli.absolute_path, required=True, help="checkpoint of ex_imagenet.py")
    common.add_options(parser, clip_seconds=2.0, n_epochs=6)
    parser.add_argument("--max_lr", type=cli.positive_float, default=3e-3, help="peak learning rate of every training")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    arch, _ = checkpoints.architecture(args.pretrained_name)
    common.open_folders(args)
    shared = ["--kd_lambda", 1, *common.training_options(args, args.max_lr, 1)]
    starts = {
        "scratch": ["--model_width", arch.width_mult, "--head_type", arch.head_type, "--se_dims", arch.se_dims],
        "images": ["--pretrained_name", args.pretrained_name],
    }
    runs = {(arm, seed): starts[arm] for seed in range(args.seeds) for arm in ARMS}
    common.train_all(runs, shared, args.output_dir, args.jobs)
    results = common.read_results(args.output_dir, list(ARMS), args.seeds)
    common.write_csv(args.output_dir / "results.csv", results)
    title = f"Audio networks from images and from scratch, {args.seeds} seeds"
    common.draw_epochs(args.output_dir / "image_pretraining.png", results, ARMS, title)
    common.print_table(results, ARMS)
    return 0


if __name__ == "__main__":
    cli.run(main)
