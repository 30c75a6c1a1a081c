"""What does a small network learn from a strong teacher that it does not learn from labels? On the open corpus, at equal budgets.

python -m datasets.prepare.opensounds --output_dir data/opensounds
python -m datasets.prepare.opensounds --output_dir data/opensounds --unlabelled
python -m studies.distillation --dataset_dir data/opensounds --output_dir runs/distillation_study --jobs 2

Networks from random weights hear the same number of clips of the same length and learn in five ways:

labels      the labels alone
stored      labels and the teacher's logits, written once by python -m helpers.distillation
online      labels and the teacher, which hears the clip as the student does
features    as online, and each block learns the output of the teacher's block: block-wise first, then end to end
unlabelled  as features, without labels, on views of recordings that have none

Writes results.csv and distillation.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from datasets import audioset
from datasets.csv_table import write_table
from helpers import cli
from helpers.distillation.agreement import agreement, predictions
from helpers.metrics import tagging_metrics
from helpers.training.evaluation import Predictions
from models.errors import UserError
from studies import common

ARMS = {
    "labels": "labels alone",
    "stored": "labels, stored logits",
    "online": "labels, online teacher",
    "features": "labels, online teacher, features",
    "unlabelled": "no labels: online teacher, features",
}
BLOCKWISE_LR = 3e-2  # constant
BLOCKWISE_SHARE = 0.3  # of the epochs
FEATURES = ("--feature_kd", 1, "--fmin_aug_range", 1, "--fmax_aug_range", 1)  # the bands of the teacher's features
RECORDING_PER_VIEW = 1.5  # length of recordings by that of the views cut from them, which speed makes up to 1.4 times longer


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    common.add_options(parser, clip_seconds=3.0, n_epochs=6)
    common.add_student_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    common.open_folders(args)
    common.require_unlabelled(args.dataset_dir)
    if args.n_epochs < 2:
        raise UserError("--n_epochs must be at least 2: one block-wise, one end to end")
    arch = common.open_teacher(args)
    can_learn_blockwise = arch.width_mult == args.model_width
    sizes = [len(clips) for clips in (audioset.training_set(args.dataset_dir), audioset.unlabelled_set(args.dataset_dir))]
    args.epoch_len = min(args.epoch_len, *sizes)  # or the ways would differ in their budgets

    common.write_teacher(args)
    for runs in plan(args, can_learn_blockwise):
        common.train_all(runs, args.output_dir, args.jobs)

    teacher = heard(args, args.teacher)
    folders = {arm: [common.run_folder(args.output_dir, arm, seed) for seed in range(args.seeds)] for arm in ARMS}
    students = {
        arm: [scores_of(heard(args, os.fspath(folder / "last.pt")), teacher) for folder in of_arm]
        for arm, of_arm in folders.items()
    }
    scores = students | {"teacher": [scores_of(teacher, teacher)]}
    write_csv(args.output_dir / "results.csv", scores)
    draw(args.output_dir / "distillation.png", scores, args.teacher)
    common.print_table(scores, ARMS | {"teacher": f"the teacher, {args.teacher}"})
    common.print_gains(students, ARMS)
    return 0


def plan(args: argparse.Namespace, can_learn_blockwise: bool) -> list[dict[tuple[str, int], list[object]]]:
    """Options of the trainings by name and seed: of those that come first, and of those that start from their weights."""
    shared = common.student_options(args)
    online = ["--teacher", args.teacher, "--kd_lambda", args.kd_lambda]
    ways = {
        "labels": ["--kd_lambda", 1, *common.AUGMENTATION],
        "stored": [*common.stored_logits_options(args), *common.AUGMENTATION],
        "online": [*online, *common.AUGMENTATION],
        "features": [*online, *common.AUGMENTATION, *FEATURES],
        "unlabelled": [
            "--teacher", args.teacher, "--kd_lambda", 0, "--clip_seconds", RECORDING_PER_VIEW * args.clip_seconds,
            "--views", args.clip_seconds, args.clip_seconds, "--mixup_alpha", 0, *FEATURES,
        ],
    }  # fmt: skip
    blockwise_epochs = max(round(BLOCKWISE_SHARE * args.n_epochs), 1) if can_learn_blockwise else 0
    first, second = {}, {}
    for seed in range(args.seeds):
        for arm, options in ways.items():
            if arm not in ("features", "unlabelled") or not blockwise_epochs:
                first[arm, seed] = [*shared, *options, *common.student_schedule(args.n_epochs)]
                continue
            schedule = common.schedule(blockwise_epochs, BLOCKWISE_LR, warm_up_len=0, ramp_down_start=blockwise_epochs)
            blocks = f"{arm}_blocks"
            first[blocks, seed] = [*shared, *options, "--blockwise_epochs", blockwise_epochs, *schedule]
            schedule = common.schedule(args.n_epochs - blockwise_epochs, common.STUDENT_LR, warm_up_len=0, ramp_down_start=0)
            start = common.run_folder(args.output_dir, blocks, seed) / "last.pt"
            second[arm, seed] = [*shared, *options, "--pretrained_name", start, *schedule]
    return [first, second]


def heard(args: argparse.Namespace, name: str) -> Predictions:
    """What a model says about the clips of the evaluation split."""
    return predictions([name], argparse.Namespace(**vars(args) | {"batch_size": 32, "num_workers": 0, "precision": None}))


def scores_of(student: Predictions, teacher: Predictions) -> dict[str, float]:
    """mAP, ROC-AUC and agreement with the teacher: mean |difference| of probabilities, share of clips with the same first tag."""
    metrics = tagging_metrics(student.targets, student.logits)
    agreed = agreement(student.logits, teacher.logits)
    return {
        "mAP": metrics.mAP,
        "ROC-AUC": metrics.mean_roc_auc,
        "difference from teacher": agreed.mean_difference,
        "teacher's first tag": agreed.equal_first_tags,
    }


def write_csv(path: Path, scores: common.Scores) -> None:
    measures = list(scores["teacher"][0])
    rows = [
        (arm, "" if arm == "teacher" else seed, *(f"{run[measure]:.5f}" for measure in measures))
        for arm, runs in scores.items()
        for seed, run in enumerate(runs)
    ]
    write_table(path, [("training", "seed", *measures), *rows])


def draw(path: Path, scores: common.Scores, teacher: str) -> None:
    """Draw mAP by way of learning: a point for each seed, a line for their mean, and the teacher's level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, arm in enumerate(ARMS):
        values = [run["mAP"] for run in scores[arm]]
        mean = statistics.mean(values)
        axes.hlines(mean, place - 0.3, place + 0.3, color="tab:blue")
        axes.plot([place] * len(values), values, "o", color="tab:blue", alpha=0.6)
        axes.annotate(f"{mean:.3f}", (place + 0.3, mean), xytext=(2, 0), textcoords="offset points", va="center", fontsize=9)
    level = scores["teacher"][0]["mAP"]
    axes.axhline(level, color="black", linestyle=":", label=f"the teacher, {Path(teacher).name}: {level:.3f}")
    axes.set(ylabel="mAP on the evaluation split", title="Students of one size, one budget", xlim=(-0.6, len(ARMS) - 0.2))
    axes.set_xticks(range(len(ARMS)), [name.replace(", ", ",\n").replace(": ", ":\n") for name in ARMS.values()], fontsize=9)
    axes.set_ylim(0, 1.2 * axes.dataLim.y1)  # room for the legend
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
