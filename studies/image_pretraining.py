"""Does a small audio network that starts from weights trained on images learn more than from scratch? On the open corpus.

python -m studies.image_pretraining --pretrained_name runs/letters/last.pt --dataset_dir data/opensounds --output_dir runs/images

Networks of one architecture are trained from both starts with the same seeds, options and steps. Writes results.csv and
image_pretraining.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from helpers import cli, network_options
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
    shared = ["--kd_lambda", 1, *common.training_options(args), *common.AUGMENTATION]
    shared += common.schedule(args.n_epochs, args.max_lr, warm_up_len=1, ramp_down_start=1)
    starts = {
        "scratch": network_options.options_of(arch),
        "images": ["--pretrained_name", args.pretrained_name],
    }
    common.train_all({(arm, seed): shared + starts[arm] for seed in range(args.seeds) for arm in ARMS}, args.output_dir, args.jobs)
    curves = common.read_curves(args.output_dir, ARMS, args.seeds)
    common.write_curves(args.output_dir / "results.csv", curves)
    title = f"Audio networks from images and from scratch, {args.seeds} seeds"
    common.draw_curves(args.output_dir / "image_pretraining.png", curves, ARMS, title)
    scores = common.last_scores(curves)
    common.print_table(scores, ARMS)
    common.print_gains(scores, ARMS)
    return 0


if __name__ == "__main__":
    cli.run(main)
