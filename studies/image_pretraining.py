"""Does a small audio network that starts from weights trained on images learn more than from scratch? On the open corpus.

python -m studies.image_pretraining --pretrained_name runs/letters/last.pt --dataset_dir data/opensounds --output_dir runs/images

Networks of one architecture are trained from both starts with the same seeds, options and steps. Writes results.csv and
image_pretraining.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from datasets.csv_table import read_table, write_table
from helpers import cli, network_options
from models import checkpoints
from studies import common

ARMS = {"scratch": "from scratch", "images": "from images"}
MEASURES = ("mAP", "ROC_AUC", "d_prime", "val_loss")

Epochs = list[dict[str, float]]  # the metrics of each epoch of a training
Results = dict[str, list[Epochs]]  # the trainings of each arm, by seed


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
    results = {arm: [read_metrics(common.run_folder(args.output_dir, arm, seed)) for seed in range(args.seeds)] for arm in ARMS}
    write_csv(args.output_dir / "results.csv", results)
    draw(args.output_dir / "image_pretraining.png", results)
    scores = {arm: [epochs[-1] for epochs in runs] for arm, runs in results.items()}
    common.print_table(scores, ARMS)
    common.print_gains(scores, ARMS)
    return 0


def read_metrics(folder: Path) -> Epochs:
    return [{name: float(row[name]) for name in MEASURES} for row in read_table(folder / "metrics.csv", MEASURES)]


def write_csv(path: Path, results: Results) -> None:
    rows = [
        (arm, seed, epoch, *(f"{metrics[name]:.5f}" for name in MEASURES))
        for arm, runs in results.items()
        for seed, epochs in enumerate(runs)
        for epoch, metrics in enumerate(epochs)
    ]
    write_table(path, [("training", "seed", "epoch", *MEASURES), *rows])


def draw(path: Path, results: Results) -> None:
    """Draw mAP over the epochs of both arms: the mean of the seeds in a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (arm, runs), style, colour in zip(results.items(), ("--", "-"), ("tab:orange", "tab:blue"), strict=True):
        by_epoch = list(zip(*([metrics["mAP"] for metrics in epochs] for epochs in runs), strict=True))
        epochs = range(1, len(by_epoch) + 1)
        axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.2, linewidth=0)
        mean = list(map(statistics.mean, by_epoch))
        axes.plot(epochs, mean, style, color=colour, label=f"{ARMS[arm]}: {mean[-1]:.3f}")
    axes.set(xlabel="epoch", ylabel="mAP on the evaluation split")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.set_title(f"Audio networks from images and from scratch, {len(results['images'])} seeds")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
