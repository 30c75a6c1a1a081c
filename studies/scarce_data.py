"""How much does pre-training help where labelled recordings are scarce? A folder of classes, fine-tuned on and from scratch.

python -m studies.scarce_data --data_dir data/klettres/usr/share/klettres --output_dir runs/scarce_data --jobs 2

1. A share of the recordings of each class is kept for testing.
2. Networks are trained on 2, 5, 10 and all of the other recordings of each class, from pre-trained and from random weights, with
   the same steps, batches, schedule and augmentation.

Writes results.csv and scarce_data.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.csv_table import write_results
from datasets.folders import folder
from helpers import cli
from models import checkpoints
from models.errors import UserError
from studies import few_clips

CLIPS_OF_A_CLASS = (2, 5, 10, None)  # None: all that are not tested on
ARMS = {"pretrained": "fine-tuned", "scratch": "from scratch"}
EPOCH_CLIPS = 640
MEASURE = "accuracy_class_mean"

Job = tuple[str, int | None, int]  # arm, clips of a class, seed


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the recordings, one folder per class")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--pretrained_name", default="mn04_distilled", help="model to fine-tune; the other has its architecture")
    parser.add_argument("--seeds", type=cli.positive_int, default=3, help="trainings of each kind, seeds 0, 1, ...")
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, default=2.0, help="length of clips")
    parser.add_argument("--test_share", type=cli.unit_interval, default=0.3, help="share of each class's recordings to test on")
    few_clips.add_training_options(parser, n_epochs=10, epoch_clips=EPOCH_CLIPS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.data_dir, args.output_dir = args.data_dir.absolute(), args.output_dir.absolute()
    jobs = [(arm, clips, seed) for seed in range(args.seeds) for clips in CLIPS_OF_A_CLASS for arm in ARMS]
    checkpoints.architecture(args.pretrained_name)  # fails early
    data, training, test = open_data(args)
    print(data.report())
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with few_clips.training_processes(args.jobs) as pool:
        scores = dict(zip(jobs, pool.map(train, [args] * len(jobs), jobs), strict=True))
    write_csv(args.output_dir / "results.csv", scores)
    counts = {clips: np.minimum(data.targets[training].sum(0), clips or len(training)) for clips in CLIPS_OF_A_CLASS}
    names = {clips: str(clips) if clips else f"all ({count.min()} to {count.max()})" for clips, count in counts.items()}
    draw(args.output_dir / "scarce_data.png", scores, names, args.seeds, 1 / len(data.class_names))
    print(f"accuracy, mean over {len(data.class_names)} classes, on {len(test)} test recordings after the last epoch")
    print_table(scores, names, args.seeds)
    return 0


def open_data(args: argparse.Namespace) -> tuple[folder.FolderData, np.ndarray, np.ndarray]:
    """The recordings, and which of them to train and to test on: the same for all trainings."""
    data = folder.scan(args.data_dir)
    if not data.single_label:
        raise UserError(f"{args.data_dir} has recordings of several classes; this study needs one folder per class")
    training, test, _ = folder.split(data, args.test_share, seed=0)
    return data, training, test


def train(args: argparse.Namespace, job: Job) -> dict[str, float]:
    """Train a network, in a folder of its own below `output_dir`, and return the last epoch's scores."""
    arm, clips, seed = job
    data, training, test = open_data(args)
    budget = few_clips.Budget(args.output_dir, args.clip_seconds, 16, EPOCH_CLIPS, args.n_epochs)
    scratch = arm == "scratch"
    return few_clips.train(
        f"{arm}_{clips or 'all'}_{seed}",
        budget,
        few_clips.start_options(args.pretrained_name, scratch=scratch),
        data,
        few_clips.choose(data.targets, training, clips, seed),
        test,
        max_lr=args.scratch_lr if scratch else args.max_lr,
        seed=seed,
    )


def write_csv(path: Path, scores: dict[Job, dict[str, float]]) -> None:
    """Write the last epoch's scores, a row for each training."""
    names = ("accuracy", MEASURE, "val_loss")
    rows = [(arm, clips or "all", seed, *(f"{v[name]:.5f}" for name in names)) for (arm, clips, seed), v in scores.items()]
    write_results(path, [("training", "clips_of_a_class", "seed", *names), *rows])


def summarise(scores: dict[Job, dict[str, float]], arm: str, clips: int | None, seeds: int) -> tuple[float, float, float, float]:
    """Mean, standard deviation, minimum and maximum over the seeds."""
    values = [scores[arm, clips, seed][MEASURE] for seed in range(seeds)]
    spread = statistics.stdev(values) if seeds > 1 else 0.0
    return statistics.mean(values), spread, min(values), max(values)


def draw(path: Path, scores: dict[Job, dict[str, float]], names: dict[int | None, str], seeds: int, chance: float) -> None:
    """Draw accuracy over the clips of a class: mean and range over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    positions = range(len(names))
    for arm, colour, style in (("pretrained", "C0", "o-"), ("scratch", "C1", "s--")):
        means, _, lows, highs = zip(*(summarise(scores, arm, clips, seeds) for clips in names), strict=True)
        axes.plot(positions, means, style, color=colour, label=ARMS[arm])
        axes.fill_between(positions, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(chance, color="black", linestyle=":", label=f"chance: {chance:.2f}")
    axes.set(ylim=(0, 1), xlabel="training clips of each class", ylabel="accuracy, mean over classes")
    axes.set_xticks(positions, names.values())
    axes.set_title(f"Pre-training where recordings are scarce, {seeds} seeds")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def print_table(scores: dict[Job, dict[str, float]], names: dict[int | None, str], seeds: int) -> None:
    """Print mean and standard deviation over the seeds as a Markdown table."""
    print(f"| clips of a class | {' | '.join(ARMS.values())} |\n|---|---|---|")
    for clips, name in names.items():
        cells = ["{:.3f} ± {:.3f}".format(*summarise(scores, arm, clips, seeds)[:2]) for arm in ARMS]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    cli.run(main)
