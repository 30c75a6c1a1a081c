"""Does a small CNN learn more from teacher logits and labels than from labels alone? On the open corpus, at equal budgets.

python -m studies.distillation --dataset_dir data/opensounds --output_dir runs/distillation_study --jobs 2

1. Networks of different seeds are trained on the labels alone.
2. The ensemble of the first few becomes the teacher: python -m helpers.distillation writes its logits.
3. Networks of the same size, seeds and budget are trained on labels and teacher together.

Writes results.csv and distillation.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from datasets import audioset
from helpers import cli
from helpers.devices import pick_device
from helpers.metrics import tagging_metrics
from helpers.training.builders import make_loader
from helpers.training.evaluation import default_precision, predict
from models.ensemble import get_ensemble_model
from models.errors import UserError
from studies import common

TEACHER = "teacher.npy"
ARMS = {"labels": "labels alone", "distilled": "labels and teacher"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    common.add_options(parser, clip_seconds=3.0, n_epochs=20)
    parser.add_argument("--teacher_members", type=cli.positive_int, default=2, help="networks in the teacher: the first seeds")
    parser.add_argument("--model_width", type=cli.positive_float, default=0.4, help="width of every network")
    parser.add_argument("--kd_lambda", type=cli.unit_interval, default=0.1, help="share of the labels in the loss of distillation")
    parser.add_argument("--temperature", type=cli.positive_float, default=1.0, help="divisor of the teacher's logits")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    common.open_folders(args)
    if args.teacher_members > args.seeds:
        raise UserError(f"a teacher of {args.teacher_members} networks needs as many --seeds, not {args.seeds}")
    members = [("labels", seed) for seed in range(args.teacher_members)]
    train_runs(args, members)
    write_teacher(args)
    train_runs(args, [(arm, seed) for seed in range(args.seeds) for arm in ARMS if (arm, seed) not in members])
    results = common.read_results(args.output_dir, list(ARMS), args.seeds)
    teacher_scores = evaluate_teacher(args)
    common.write_csv(args.output_dir / "results.csv", results)
    level = (teacher_scores["mAP"], f"the teacher, an ensemble of {args.teacher_members}")
    title = f"One network size, one budget, {args.seeds} seeds"
    common.draw_epochs(args.output_dir / "distillation.png", results, ARMS, title, level)
    measured = (f"{teacher_scores[name]:.4f}" if name in teacher_scores else "-" for name in common.MEASURES)
    common.print_table(results, ARMS, f"| the teacher | {' | '.join(measured)} |")
    return 0


def train_runs(args: argparse.Namespace, runs: Sequence[tuple[str, int]]) -> None:
    """Train the networks of these arms and seeds, or resume them."""
    shared = common.training_options(args, 3e-3, max(args.n_epochs // 5, 1)) + ["--model_width", args.model_width]
    options = {
        "labels": ["--kd_lambda", 1],
        "distilled": [
            "--teacher_preds",
            args.output_dir / TEACHER,
            "--kd_lambda",
            args.kd_lambda,
            "--temperature",
            args.temperature,
        ],
    }
    common.train_all({run: options[run[0]] for run in runs}, shared, args.output_dir, args.jobs)


def write_teacher(args: argparse.Namespace) -> None:
    """Write the logits that the ensemble of the teacher's members gives to the training clips."""
    members = list(map(str, teacher_members(args)))
    path = args.output_dir / TEACHER
    if path.exists():
        about = json.loads(path.with_suffix(".json").read_text())
        if (about["models"], about["clip_seconds"]) != (members, args.clip_seconds):
            raise UserError(f"{path} was written with other options; give another --output_dir")
        return
    options = ["--dataset_dir", args.dataset_dir, "--clip_seconds", args.clip_seconds, "--output", path]
    options += ["--cuda"] if args.cuda else []
    common.run_python(["-m", "helpers.distillation", "--models", *members, *options], "teacher", args.output_dir, args.jobs)


def teacher_members(args: argparse.Namespace) -> list[Path]:
    return [common.run_folder(args.output_dir, "labels", seed) / "last.pt" for seed in range(args.teacher_members)]


def evaluate_teacher(args: argparse.Namespace) -> dict[str, float]:
    device = pick_device(args.cuda)
    model = get_ensemble_model([os.fspath(path) for path in teacher_members(args)]).to(device)
    clips = audioset.evaluation_set(args.dataset_dir, sample_rate=model.sample_rate, clip_seconds=args.clip_seconds)
    loader = make_loader(clips, argparse.Namespace(batch_size=32, num_workers=0, cuda=args.cuda))
    predictions = predict(model, loader, default_precision(device))
    scores = tagging_metrics(predictions.targets, predictions.logits)
    return {"mAP": scores.mAP, "ROC_AUC": scores.mean_roc_auc, "d_prime": scores.d_prime}


if __name__ == "__main__":
    cli.run(main)
